/*
 * Lists of processes: the sizing call, the filling call, and processes that begin between the two.
 */
#include <stdlib.h>
#include <string.h>

#include "calls.h"

static nvmlProcessInfo_t grown(uint32_t n) {
    return (nvmlProcessInfo_t){.pid = 4000000u + n,
                               .usedGpuMemory = 1 << 20,
                               .gpuInstanceId = NO_INSTANCE,
                               .computeInstanceId = NO_INSTANCE};
}

/* Processes that began between the sizing call and this filling call, as the file's process_growth says. */
static uint32_t growth_now(const device *d) {
    static struct {
        uint64_t generation;
        int64_t calls;
        char uuid[96];
    } filled[64];
    size_t at = (size_t)d->index % (sizeof filled / sizeof *filled);
    if (d->process_growth == 0 || d->process_growth_calls < 0) return d->process_growth;
    if (filled[at].generation != driver_generation() || strcmp(filled[at].uuid, d->uuid) != 0) {
        filled[at].generation = driver_generation();
        filled[at].calls = 0;
        memcpy(filled[at].uuid, d->uuid, sizeof filled[at].uuid);
    }
    return filled[at].calls++ < d->process_growth_calls ? d->process_growth : 0;
}

static bool belongs(const device *owner, const device *asked) {
    return owner == asked || owner->parent == asked;
}

/* A GPU in MIG mode lists the processes of its slices too. Counts them all, writes those that fit. */
static uint32_t list_processes(const device *d, enum process_kind kind, nvmlProcessInfo_t *to,
                               uint32_t room) {
    uint32_t n = 0;
    for (const device *owner = driver_state()->devices; owner != NULL; owner = owner->next) {
        if (!belongs(owner, d)) continue;
        for (const process *p = owner->processes; p != NULL; p = p->next) {
            if (kind != PROCESS_ANY && p->kind != kind) continue;
            if (n < room) to[n] = p->info;
            n++;
        }
    }
    return n;
}

static nvmlReturn_t get_processes(const char *call, nvmlDevice_t handle, enum process_kind kind,
                                  uint32_t *count, nvmlProcessInfo_t *infos) {
    device *d;
    nvmlReturn_t code = enter(call, ON_DEVICE(handle), true, &d);
    if (code != NVML_SUCCESS) return code;
    uint32_t room = infos == NULL ? 0 : *count;
    uint32_t n = list_processes(d, kind, infos, room);
    uint32_t extra = infos == NULL ? 0 : growth_now(d);
    *count = n + extra;
    if (n + extra > room) return leave(NVML_ERROR_INSUFFICIENT_SIZE);
    for (uint32_t i = 0; i < extra; i++) infos[n + i] = grown(i);
    return leave(NVML_SUCCESS);
}

#define LISTS(call, kind)                                                               \
    nvmlReturn_t call(nvmlDevice_t handle, uint32_t *count, nvmlProcessInfo_t *infos) { \
        return get_processes(__func__, handle, kind, count, infos);                     \
    }
LISTS(nvmlDeviceGetComputeRunningProcesses_v2, PROCESS_COMPUTE)
LISTS(nvmlDeviceGetComputeRunningProcesses_v3, PROCESS_COMPUTE)
LISTS(nvmlDeviceGetGraphicsRunningProcesses_v2, PROCESS_GRAPHICS)
LISTS(nvmlDeviceGetGraphicsRunningProcesses_v3, PROCESS_GRAPHICS)
LISTS(nvmlDeviceGetMPSComputeRunningProcesses_v2, PROCESS_MPS)
LISTS(nvmlDeviceGetMPSComputeRunningProcesses_v3, PROCESS_MPS)

nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t handle, nvmlProcessDetailList_v1_t *list) {
    ENTER_DEVICE(handle);
    if (list->version != PROCESS_DETAIL_LIST_V1) return leave(NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    if (list->mode > PROCESS_ANY) return leave(NVML_ERROR_INVALID_ARGUMENT);
    uint32_t room = list->procArray == NULL ? 0 : list->numProcArrayEntries;
    uint32_t n = list_processes(d, (enum process_kind)list->mode, NULL, 0);
    list->numProcArrayEntries = n;
    if (n > room) return leave(NVML_ERROR_INSUFFICIENT_SIZE);
    nvmlProcessInfo_t *infos = calloc(n + 1, sizeof *infos);
    if (infos == NULL) return leave(NVML_ERROR_MEMORY);
    list_processes(d, (enum process_kind)list->mode, infos, n);
    for (uint32_t i = 0; i < n; i++)
        list->procArray[i] = (nvmlProcessDetail_v1_t){infos[i].pid, infos[i].usedGpuMemory,
                                                      infos[i].gpuInstanceId, infos[i].computeInstanceId, 0};
    free(infos);
    return leave(NVML_SUCCESS);
}
