// What the kernels share. The loader puts this text before each kernel's own, because
// CuPy's cache of compiled kernels does not see a file that is included by path.

// tests/kernels runs the kernels on the host and brings its own memory
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

// One instruction on the device, good to about one part in 2**22; plain sqrtf is a dozen.
static __device__ __forceinline__ float approximate_sqrt(float x) {
#ifdef __CUDA_ARCH__
    float root;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
    return root;
#else
    return sqrtf(x);
#endif
}

// The compiler at run time has no headers, hence no INFINITY.
static __device__ __forceinline__ float infinity() {
#ifdef __CUDA_ARCH__
    return __int_as_float(0x7f800000);
#else
    return INFINITY;
#endif
}

// CuPy compiles with -ftz=true, which turns denormal numbers into 0. The functions below do
// not, so that a row gets the same bits as from the CPU engine.

// sum + (x - c)^2 with the roundings of a subtraction and a fused multiply-add
static __device__ __forceinline__ float add_sq_difference(float x, float c, float sum) {
#ifdef __CUDA_ARCH__
    const float difference = __fmaf_ieee_rn(c, -1.0f, x);
    return __fmaf_ieee_rn(difference, difference, sum);
#else
    const float difference = x - c;
    return fmaf(difference, difference, sum);
#endif
}

// a < b, for numbers that are not negative: their bits are in the same order
static __device__ __forceinline__ bool is_less(float a, float b) {
#ifdef __CUDA_ARCH__
    return __float_as_int(a) < __float_as_int(b);
#else
    return a < b;
#endif
}

// sum + (x - mean) * weight, each operation rounded: never fused
static __device__ __forceinline__ double add_weighted(float x, double mean, double weight,
                                                      double sum) {
#ifdef __CUDA_ARCH__
    double wide;
    asm("cvt.f64.f32 %0, %1;" : "=d"(wide) : "f"(x));
    return __dadd_rn(sum, __dmul_rn(__dsub_rn(wide, mean), weight));
#else
    return sum + (x - mean) * weight;
#endif
}

static __device__ __forceinline__ float rounded(double x) {
#ifdef __CUDA_ARCH__
    float nearest;
    asm("cvt.rn.f32.f64 %0, %1;" : "=f"(nearest) : "d"(x));
    return nearest;
#else
    return (float)x;
#endif
}
