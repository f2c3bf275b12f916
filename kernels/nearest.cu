// nearest: for every row x_i the nearest and the second nearest of the centroids c_j, by
//
//     |x_i - c_j|^2 = sum over the features f, in their order, of (x_if - c_jf)^2
//
// each term a subtraction and a fused multiply-add in float32: the operations of
// gpuseg/backends/cpu/nearest_lines.py, hence its bits. Ties go to the smaller j.
//
// A block owns kRows rows, two to a thread, and walks over the centroids eight at a time.
// Both go through shared memory in chunks of `depth` features; where a chunk holds all
// features, the rows stay there for all centroids. A thread reads each of its values once
// for eight centroids, and each centroid's value (one address for all threads) for two rows.
//
// Arguments (device pointers, C order)
//     X              (n_rows, n_features)     float   finite
//     centroids      (n_clusters, n_features) float
//     labels         (n_rows,) int            nearest centroid
//     sq_distances   (n_rows,) float          to it
//     second_labels  (n_rows,) int            second nearest; -1 if there is one centroid
//     second_sq_distances (n_rows,) float     to it; inf if there is one centroid
//     depth          features per chunk, 1 to n_features
//
// Launch: any grid (a grid-stride loop over the rows), blocks of BLOCK_THREADS.
// Shared memory: 4 depth (8 + 2 BLOCK_THREADS + 1) bytes.
// Repeated runs are bit-equal, whatever the launch: a row's result has one owner and
// depends on no other row.
// Lloyd, S. P. (1982). Least squares quantization in PCM. IEEE Trans. Inf. Theory 28(2).

// a multiple of 32
#ifndef BLOCK_THREADS
#define BLOCK_THREADS 128
#endif

constexpr int kWidth = 8;                 // centroids at a time
constexpr int kRows = 2 * BLOCK_THREADS;  // rows of a block
constexpr int kStride = kRows + 1;        // odd, so that turning a tile hits all banks

struct Nearest {
    float sq = infinity(), second_sq = infinity();
    int label = -1, second_label = -1;

    __device__ __forceinline__ void keep(float new_sq, int new_label) {
        if (new_label == 0 || is_less(new_sq, sq)) {
            second_sq = sq, second_label = label;
            sq = new_sq, label = new_label;
        } else if (is_less(new_sq, second_sq)) {
            second_sq = new_sq, second_label = new_label;
        }
    }
};

// The chunk's features of the block's rows, turned: [feature][row]. Rows past the end are 0.
static __device__ __forceinline__ void load_rows(const float* X, long long row0, long long n_rows,
                                                 int n_features, int feature0, int n_chunk,
                                                 float* tile) {
    for (int i = threadIdx.x; i < kRows * n_chunk; i += BLOCK_THREADS) {
        const int r = i / n_chunk;
        const int f = i - r * n_chunk;
        const long long row = row0 + r;
        tile[f * kStride + r] = row < n_rows ? X[row * n_features + feature0 + f] : 0.0f;
    }
}

// The chunk's features of eight centroids: [feature][centroid]. Past the last one they are 0.
static __device__ __forceinline__ void load_centroids(const float* centroids, int first,
                                                      int n_clusters, int n_features, int feature0,
                                                      int n_chunk, float* chunk) {
    for (int i = threadIdx.x; i < kWidth * n_chunk; i += BLOCK_THREADS) {
        const int f = i / kWidth;
        const long long c = first + i % kWidth;
        chunk[i] = c < n_clusters ? centroids[c * n_features + feature0 + f] : 0.0f;
    }
}

static __device__ __forceinline__ void add_features(const float* tile, const float* chunk,
                                                    int n_chunk, float (&low)[kWidth],
                                                    float (&high)[kWidth]) {
#pragma unroll 2
    for (int f = 0; f < n_chunk; ++f) {
        const float x = tile[f * kStride + threadIdx.x];
        const float y = tile[f * kStride + threadIdx.x + BLOCK_THREADS];
        const float4* given = reinterpret_cast<const float4*>(chunk + f * kWidth);
        const float4 a = given[0], b = given[1];
        const float c[kWidth] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
            low[j] = add_sq_difference(x, c[j], low[j]);
            high[j] = add_sq_difference(y, c[j], high[j]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) nearest(
    const float* __restrict__ X, const float* __restrict__ centroids, int* __restrict__ labels,
    float* __restrict__ sq_distances, int* __restrict__ second_labels,
    float* __restrict__ second_sq_distances, long long n_rows, int n_features, int n_clusters,
    int depth) {
    DYNAMIC_SHARED(float4, storage);
    float* chunk = reinterpret_cast<float*>(storage);
    float* tile = chunk + depth * kWidth;

    for (long long row0 = (long long)blockIdx.x * kRows; row0 < n_rows;
         row0 += (long long)gridDim.x * kRows) {
        Nearest found[2];
        for (int first = 0; first < n_clusters; first += kWidth) {
            float sq[2][kWidth] = {};
            for (int feature0 = 0; feature0 < n_features; feature0 += depth) {
                const int n_chunk = min(depth, n_features - feature0);
                __syncthreads();  // everyone is done with the last chunk
                if (depth < n_features || first == 0) {
                    load_rows(X, row0, n_rows, n_features, feature0, n_chunk, tile);
                }
                load_centroids(centroids, first, n_clusters, n_features, feature0, n_chunk, chunk);
                __syncthreads();
                add_features(tile, chunk, n_chunk, sq[0], sq[1]);
            }
#pragma unroll
            for (int j = 0; j < kWidth; ++j) {
                if (first + j >= n_clusters) break;
                found[0].keep(sq[0][j], first + j);
                found[1].keep(sq[1][j], first + j);
            }
        }
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const long long row = row0 + threadIdx.x + r * BLOCK_THREADS;
            if (row >= n_rows) continue;
            labels[row] = found[r].label;
            sq_distances[row] = found[r].sq;
            second_labels[row] = found[r].second_label;
            second_sq_distances[row] = found[r].second_sq;
        }
    }
}
