// project: coordinates of every row on the components
//
//     scores_ic = sum over the features f, in their order, of (x_if - mean_f) * components_fc
//
// in float64, nothing fused, rounded to float32 at the end: the operations of
// gpuseg/backends/cpu/projection.py, hence its bits. A library's matrix product is faster,
// but the last bits of a row may then depend on how many rows there are.
//
// A thread owns one coordinate; threads side by side read components side by side, and the
// same value of the row.
//
// Arguments (device pointers, C order)
//     X           (n_rows, n_features)       float
//     mean        (n_features,)              double
//     components  (n_features, n_components) double
//     scores      (n_rows, n_components)     float
//
// Launch: any grid (a grid-stride loop over the coordinates), any blocks. No shared memory.
// Repeated runs are bit-equal, whatever the launch.

extern "C" __global__ void project(const float* __restrict__ X, const double* __restrict__ mean,
                                   const double* __restrict__ components,
                                   float* __restrict__ scores, long long n_rows, int n_features,
                                   int n_components) {
    const long long n_scores = n_rows * n_components;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n_scores;
         i += (long long)gridDim.x * blockDim.x) {
        const long long row = i / n_components;
        const float* x = X + row * n_features;
        const double* component = components + (i - row * n_components);
        double sum = 0.0;
        for (int f = 0; f < n_features; ++f) {
            sum = add_weighted(x[f], mean[f], component[(long long)f * n_components], sum);
        }
        scores[i] = rounded(sum);
    }
}
