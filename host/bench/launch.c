#include "bench/bench.h"

#include "base/error.h"

static const char source[] = "kernel void count(global int *y, ulong y0) { y[y0] += 1; }\n";

struct counted {
    struct device *device;
    struct device_kernel *kernel;
    bool wait;
    int32_t launches;
};

static int launch(void *what) {
    static const size_t one[3] = {1, 1, 1};
    int status = RETORT_OK;
    struct counted *counted = what;
    TRY(device_launch(counted->device, counted->kernel, one, one));
    if (counted->wait) TRY(device_finish(counted->device));
    counted->launches++;
done:
    return status;
}

int bench_launch(struct device *device, double *queued, double *waited) {
    const double budget = 0.05;
    int status = RETORT_OK;
    struct device_program *program = NULL;
    struct device_buffer *buffer = NULL;
    struct counted counted = {.device = device};
    double together, alone;
    int32_t found;
    TRY(device_program_create(device, source, "", &program));
    TRY(device_kernel_create(program, "count", &counted.kernel));
    TRY(device_buffer_create(device, sizeof found, "a counter", &buffer));
    TRY(device_fill_zero(device, buffer, 0, sizeof found));
    TRY(device_kernel_set_buffer(counted.kernel, 0, buffer, 0));
    TRY(device_time(device, launch, &counted, budget, &together));
    counted.wait = true;
    TRY(device_time(device, launch, &counted, budget, &alone));
    TRY(device_read(device, buffer, 0, sizeof found, &found));
    if (found != counted.launches)
        RAISE(RETORT_EDEVICE, "of %d launches of a kernel %d took place", counted.launches, found);
    *queued = together;
    *waited = alone;
done:
    device_kernel_destroy(counted.kernel);
    device_buffer_destroy(buffer);
    device_program_destroy(program);
    return status;
}
