/*
 * What the exported calls share: how one begins, and how a device's number becomes an answer.
 */
#ifndef FAKE_NVML_CALLS_H
#define FAKE_NVML_CALLS_H

#include "control.h"

#define ON_DEVICE(h) ((target){.by = ON_HANDLE, .handle = (h)})
#define ON_DRIVER ((target){.by = ON_NOTHING})

/* Opens the body of a call about one device; the body ends with `return leave(code)`. */
#define ENTER_DEVICE(h)                                           \
    device *d;                                                    \
    nvmlReturn_t code_ = enter(__func__, ON_DEVICE(h), true, &d); \
    if (code_ != NVML_SUCCESS) return code_

#define ENTER_DRIVER(needs_init)                                     \
    device *d;                                                       \
    nvmlReturn_t code_ = enter(__func__, ON_DRIVER, needs_init, &d); \
    if (code_ != NVML_SUCCESS) return code_

static inline bool has(const device *d, enum number n) { return d->number[n] != ABSENT; }

static inline nvmlReturn_t put_u32(const device *d, enum number n, uint32_t *to) {
    if (!has(d, n)) return NVML_ERROR_NOT_SUPPORTED;
    *to = (uint32_t)d->number[n];
    return NVML_SUCCESS;
}

static inline nvmlReturn_t put_u64(const device *d, enum number n, uint64_t *to) {
    if (!has(d, n)) return NVML_ERROR_NOT_SUPPORTED;
    *to = (uint64_t)d->number[n];
    return NVML_SUCCESS;
}

/* Millijoules: the base, and since energy_since_nanoseconds (monotonic clock) what the average power adds. */
nvmlReturn_t device_energy(const device *d, uint64_t *millijoules);

#endif
