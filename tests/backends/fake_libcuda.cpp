// A driver library that says what the environment tells it to, for machines without one.
// Only the calls that gpuseg makes; signatures as in cuda.h.
#include <cstddef>
#include <cstdlib>
#include <cstring>

static int number(const char* name, int otherwise) {
    const char* text = std::getenv(name);
    return text ? std::atoi(text) : otherwise;
}

static int contexts = 0;  // retained and not released
static int pushed = 0;

extern "C" {

int cuDriverGetVersion(int* version) {
    *version = number("FAKE_CUDA_VERSION", 13000);
    return number("FAKE_CUDA_VERSION_CODE", 0);
}
int cuInit(unsigned) { return number("FAKE_CUDA_INIT", 0); }
int cuDeviceGetCount(int* count) {
    *count = number("FAKE_CUDA_COUNT", 1);
    return 0;
}
int cuDeviceGet(int* device, int ordinal) {
    *device = 40 + ordinal;
    return ordinal < number("FAKE_CUDA_COUNT", 1) ? 0 : 101;
}
int cuDeviceGetName(char* name, int length, int device) {
    std::strncpy(name, "Fake GPU", length);
    return device == 40 ? 0 : 101;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    const int capability = number("FAKE_CUDA_CAPABILITY", 90);
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : -1;
    return device == 40 ? 0 : 101;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
    if (number("FAKE_CUDA_CONTEXT", 0)) return number("FAKE_CUDA_CONTEXT", 0);
    *context = &contexts;
    ++contexts;
    return device == 40 ? 0 : 101;
}
int cuCtxPushCurrent_v2(void* context) {
    ++pushed;
    return context == &contexts && contexts > 0 ? 0 : 201;
}
int cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
    *free_bytes = static_cast<size_t>(number("FAKE_CUDA_FREE_MIB", 71680)) << 20;
    *total = static_cast<size_t>(81920) << 20;
    return pushed > 0 ? number("FAKE_CUDA_MEMORY", 0) : 201;
}
int cuCtxPopCurrent_v2(void** context) {
    *context = &contexts;
    return --pushed < 0 ? 201 : 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) { return --contexts < 0 || device != 40 ? 201 : 0; }
int cuGetErrorName(int code, const char** name) {
    *name = code == 100 ? "CUDA_ERROR_NO_DEVICE"
            : code == 803 ? "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"
            : code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY"
                        : nullptr;
    return *name ? 0 : 1;
}

}  // extern "C"
