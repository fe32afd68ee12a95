/* Preloaded: every OpenCL device says that it has RETORT_TEST_MEMORY bytes, of which RETORT_TEST_ALLOCATION in one
 * piece, where these variables are set. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <CL/cl.h>
#include <dlfcn.h>
#include <stdlib.h>

CL_API_ENTRY cl_int CL_API_CALL clGetDeviceInfo(cl_device_id device, cl_device_info what, size_t size, void *value,
                                                size_t *written) {
    static cl_int(CL_API_CALL * real)(cl_device_id, cl_device_info, size_t, void *, size_t *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clGetDeviceInfo");
    cl_int code = real(device, what, size, value, written);
    const char *text = what == CL_DEVICE_GLOBAL_MEM_SIZE      ? getenv("RETORT_TEST_MEMORY")
                       : what == CL_DEVICE_MAX_MEM_ALLOC_SIZE ? getenv("RETORT_TEST_ALLOCATION")
                                                              : NULL;
    if (code == CL_SUCCESS && value && text) *(cl_ulong *)value = strtoull(text, NULL, 10);
    return code;
}
