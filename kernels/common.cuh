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
