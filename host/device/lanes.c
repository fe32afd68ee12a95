/* How much arithmetic a device does at once. What drivers call a compute unit means different things: a core of a CPU,
 * an SM of 64 or 128 lanes, an AMD unit or two of them together, an Intel EU of 8 or 16. Lanes can be compared. */
#include "device/internal.h"

#include <CL/cl_ext.h>
#include <stdlib.h>
#include <string.h>

/* Lanes of an SM by compute capability, as NVIDIA's programming guide has them ("Arithmetic Instructions"). */
static unsigned lanes_of_sm(unsigned major, unsigned minor) {
    switch (major) {
    case 1:
        return 8;
    case 2:
        return minor == 0 ? 32 : 48;
    case 3:
        return 192;
    case 6:
    case 8:
        return minor == 0 ? 64 : 128;
    case 7:
        return 64;
    default:
        return 128;
    }
}

static unsigned narrowest(unsigned sub_groups) {
    return sub_groups & -sub_groups; /* the lowest bit */
}

unsigned device_count_lanes(const struct device_arithmetic *a) {
    enum { GPU_UNIT = 64, EU = 8 };
    unsigned unit = a->vector_width;
    if (a->kind == DEVICE_GPU) {
        if (a->compute_capability[0])
            unit = lanes_of_sm(a->compute_capability[0], a->compute_capability[1]);
        else if (a->simds_per_unit && a->simd_width)
            unit = a->simds_per_unit * a->simd_width; /* RDNA: 2 of 32, or 4 where the driver counts units by two */
        else if (a->eus_per_sub_slice)
            /* The driver counts EUs. Their registers are as wide as the narrowest sub-group: 8 lanes up to Xe-HPG,
             * 16 on Xe-HPC and Xe2. */
            unit = a->sub_groups ? narrowest(a->sub_groups) : EU;
        else
            unit = GPU_UNIT;
    }
    return a->compute_units * unit;
}

bool device_lists_extension(const char *extensions, const char *name) {
    size_t length = strlen(name);
    for (const char *at = extensions; (at = strstr(at, name)); at += length)
        if ((at == extensions || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0')) return true;
    return false;
}

static unsigned query_unsigned(cl_device_id device, cl_device_info what) {
    cl_uint value = 0;
    return clGetDeviceInfo(device, what, sizeof value, &value, NULL) == CL_SUCCESS ? value : 0;
}

/* The sizes of sub-group a kernel may require, added up: all known ones are powers of two. */
static unsigned query_sub_groups(cl_device_id device) {
    size_t sizes[16], bytes = 0;
    unsigned sum = 0;
    if (clGetDeviceInfo(device, CL_DEVICE_SUB_GROUP_SIZES_INTEL, sizeof sizes, sizes, &bytes) != CL_SUCCESS) return 0;
    for (size_t i = 0; i < bytes / sizeof *sizes && i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i] > 0 && sizes[i] <= 1024 && (sizes[i] & (sizes[i] - 1)) == 0) sum |= (unsigned)sizes[i];
    return sum;
}

void device_query_lanes(cl_device_id device, struct device_traits *traits) {
    struct device_arithmetic a = {
        .kind = traits->kind, .compute_units = traits->compute_units, .vector_width = traits->vector_width};
    size_t size = 0;
    char *extensions = NULL;
    if (clGetDeviceInfo(device, CL_DEVICE_EXTENSIONS, 0, NULL, &size) == CL_SUCCESS) extensions = calloc(1, size + 1);
    if (extensions && clGetDeviceInfo(device, CL_DEVICE_EXTENSIONS, size, extensions, NULL) == CL_SUCCESS) {
        if (device_lists_extension(extensions, "cl_intel_required_subgroup_size"))
            a.sub_groups = query_sub_groups(device);
        if (device_lists_extension(extensions, "cl_nv_device_attribute_query")) {
            a.compute_capability[0] = query_unsigned(device, CL_DEVICE_COMPUTE_CAPABILITY_MAJOR_NV);
            a.compute_capability[1] = query_unsigned(device, CL_DEVICE_COMPUTE_CAPABILITY_MINOR_NV);
            traits->wave = query_unsigned(device, CL_DEVICE_WARP_SIZE_NV);
        }
        if (device_lists_extension(extensions, "cl_amd_device_attribute_query")) {
            a.simds_per_unit = query_unsigned(device, CL_DEVICE_SIMD_PER_COMPUTE_UNIT_AMD);
            a.simd_width = query_unsigned(device, CL_DEVICE_SIMD_WIDTH_AMD);
            traits->wave = query_unsigned(device, CL_DEVICE_WAVEFRONT_WIDTH_AMD);
        }
        if (device_lists_extension(extensions, "cl_intel_device_attribute_query"))
            a.eus_per_sub_slice = query_unsigned(device, CL_DEVICE_NUM_EUS_PER_SUB_SLICE_INTEL);
    }
    free(extensions);
    traits->sub_groups = a.sub_groups;
    traits->lanes = device_count_lanes(&a);
}
