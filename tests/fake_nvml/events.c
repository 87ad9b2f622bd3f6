/*
 * Event sets: Xid and other events that the control file lists, delivered once to every set that had
 * registered their device and type before they were written. NVML API reference, "Event Handling Methods".
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control.h"

#define SETS 64

typedef struct registration {
    nvmlDevice_t handle;
    uint64_t types, from; /* events with a higher sequence number than `from` */
    struct registration *next;
} registration;

typedef struct event_set {
    bool used;
    uint64_t delivered;
    registration *registrations;
} event_set;

static event_set sets[SETS];

static event_set *set_of(nvmlEventSet_t handle) {
    for (event_set *s = sets; s < sets + SETS; s++)
        if (s == handle && s->used) return s;
    return NULL;
}

static uint64_t newest(void) {
    uint64_t sequence = 0;
    for (const event *e = driver_state()->events; e != NULL; e = e->next)
        if (e->sequence > sequence) sequence = e->sequence;
    return sequence;
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
    device *d;
    nvmlReturn_t code = enter(__func__, (target){.by = ON_NOTHING}, true, &d);
    if (code != NVML_SUCCESS) return code;
    event_set *s = sets;
    while (s < sets + SETS && s->used) s++;
    if (s == sets + SETS) return leave(NVML_ERROR_MEMORY);
    *s = (event_set){.used = true};
    *set = s;
    return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t handle, uint64_t types, nvmlEventSet_t set) {
    device *d;
    nvmlReturn_t code = enter(__func__, (target){.by = ON_HANDLE, .handle = handle}, true, &d);
    if (code != NVML_SUCCESS) return code;
    event_set *s = set_of(set);
    int64_t supported = d->number[NUMBER_event_types];
    if (s == NULL) return leave(NVML_ERROR_INVALID_ARGUMENT);
    if (supported == ABSENT || (types & ~(uint64_t)supported) != 0) return leave(NVML_ERROR_NOT_SUPPORTED);
    registration *r = calloc(1, sizeof *r);
    if (r == NULL) return leave(NVML_ERROR_MEMORY);
    *r = (registration){.handle = handle, .types = types, .from = newest(), .next = s->registrations};
    s->registrations = r;
    return leave(NVML_SUCCESS);
}

/* The oldest event that this set has registered for and not been given. */
static bool take(event_set *s, nvmlEventData_t *data) {
    const event *best = NULL;
    nvmlDevice_t handle = NULL;
    for (const event *e = driver_state()->events; e != NULL; e = e->next) {
        if (e->sequence <= s->delivered || (best != NULL && e->sequence >= best->sequence)) continue;
        for (const registration *r = s->registrations; r != NULL; r = r->next) {
            const char *uuid = handle_uuid(r->handle);
            if (uuid == NULL || strcmp(uuid, e->uuid) != 0 || (r->types & e->type) == 0 ||
                e->sequence <= r->from)
                continue;
            best = e;
            handle = r->handle;
        }
    }
    if (best == NULL) return false;
    s->delivered = best->sequence;
    *data = (nvmlEventData_t){.device = handle,
                              .eventType = best->type,
                              .eventData = best->data,
                              .gpuInstanceId = NO_INSTANCE,
                              .computeInstanceId = NO_INSTANCE};
    return true;
}

static int64_t now_milliseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000) + t.tv_nsec / 1000000;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, uint32_t timeout_milliseconds) {
    device *d;
    int64_t deadline = now_milliseconds() + timeout_milliseconds;
    nvmlReturn_t code = enter(__func__, (target){.by = ON_NOTHING}, true, &d);
    if (code != NVML_SUCCESS) return code;
    for (;;) {
        event_set *s = set_of(set);
        if (s == NULL) return leave(NVML_ERROR_INVALID_ARGUMENT);
        if (driver_state() == NULL) return leave(NVML_ERROR_UNKNOWN);
        if (take(s, data)) return leave(NVML_SUCCESS);
        if (now_milliseconds() >= deadline) return leave(NVML_ERROR_TIMEOUT);
        driver_unlock();
        nap();
        driver_lock_fresh();
    }
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
    device *d;
    nvmlReturn_t code = enter(__func__, (target){.by = ON_NOTHING}, true, &d);
    if (code != NVML_SUCCESS) return code;
    event_set *s = set_of(set);
    if (s == NULL) return leave(NVML_ERROR_INVALID_ARGUMENT);
    for (registration *r = s->registrations, *next; r != NULL; r = next) {
        next = r->next;
        free(r);
    }
    *s = (event_set){0};
    return leave(NVML_SUCCESS);
}
