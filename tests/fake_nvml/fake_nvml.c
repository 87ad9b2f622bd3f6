/*
 * A stand-in for libnvidia-ml.so.1 that the real pynvml loads: it answers from a control file (README.md).
 * Names, arguments and return codes: NVML API reference and pynvml.py of nvidia-ml-py 13.615.71. A call that
 * is not here is not exported, so pynvml reports it as "function not found", as an older driver would.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "calls.h"

static nvmlReturn_t put_text(const char *text, char *to, uint32_t size) {
    if (*text == '\0') return NVML_ERROR_NOT_SUPPORTED;
    return snprintf(to, size, "%s", text) < (int)size ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

/* ---- driver ---- */

nvmlReturn_t nvmlInitWithFlags(uint32_t flags) {
    (void)flags;
    ENTER_DRIVER(false);
    driver_initialise();
    return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlInit_v2(void) {
    ENTER_DRIVER(false);
    driver_initialise();
    return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlShutdown(void) {
    ENTER_DRIVER(true);
    return leave(driver_shutdown());
}

const char *nvmlErrorString(nvmlReturn_t code) {
    switch (code) {
        case NVML_SUCCESS: return "The operation was successful";
        case NVML_ERROR_UNINITIALIZED: return "Uninitialized";
        case NVML_ERROR_INVALID_ARGUMENT: return "Invalid Argument";
        case NVML_ERROR_NOT_SUPPORTED: return "Not Supported";
        case NVML_ERROR_NOT_FOUND: return "Not Found";
        case NVML_ERROR_INSUFFICIENT_SIZE: return "Insufficient Size";
        case NVML_ERROR_DRIVER_NOT_LOADED: return "Driver Not Loaded";
        case NVML_ERROR_TIMEOUT: return "Timeout";
        case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
        case NVML_ERROR_LIB_RM_VERSION_MISMATCH: return "Driver/library version mismatch";
        default: return "Unknown Error";
    }
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, uint32_t length) {
    ENTER_DRIVER(true);
    return leave(put_text(driver_state()->module_version, version, length));
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, uint32_t length) {
    ENTER_DRIVER(false);
    return leave(put_text(driver_state()->nvml_version, version, length));
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
    ENTER_DRIVER(false);
    if (driver_state()->cuda_version == ABSENT) return leave(NVML_ERROR_NOT_SUPPORTED);
    *version = (int)driver_state()->cuda_version;
    return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetCount_v2(uint32_t *count) {
    ENTER_DRIVER(true);
    const control *c = driver_state();
    *count = (uint32_t)(c->count == ABSENT ? c->gpus : c->count);
    return leave(NVML_SUCCESS);
}

/* ---- handles ---- */

static nvmlReturn_t get_handle(const char *call, target what, nvmlDevice_t *handle) {
    device *d;
    nvmlReturn_t code = enter(call, what, true, &d);
    if (code != NVML_SUCCESS) return code;
    const control *c = driver_state();
    if (what.by == ON_INDEX && c->count != ABSENT && what.index >= c->count)
        return leave(NVML_ERROR_INVALID_ARGUMENT);
    *handle = handle_of(d);
    return leave(*handle == NULL ? NVML_ERROR_MEMORY : NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(uint32_t index, nvmlDevice_t *handle) {
    return get_handle(__func__, (target){.by = ON_INDEX, .index = index}, handle);
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *handle) {
    return get_handle(__func__, (target){.by = ON_UUID, .text = uuid}, handle);
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *handle) {
    return get_handle(__func__, (target){.by = ON_BUS_ID, .text = bus_id}, handle);
}

/* ---- identity ---- */

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t handle, char *uuid, uint32_t length) {
    ENTER_DEVICE(handle);
    return leave(put_text(d->uuid, uuid, length));
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t handle, char *name, uint32_t length) {
    ENTER_DEVICE(handle);
    return leave(put_text(d->name, name, length));
}

nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t handle, char *serial, uint32_t length) {
    ENTER_DEVICE(handle);
    return leave(put_text(d->serial, serial, length));
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t handle, uint32_t *index) {
    ENTER_DEVICE(handle);
    *index = (uint32_t)d->index;
    return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t handle, nvmlPciInfo_t *pci) {
    ENTER_DEVICE(handle);
    const device *gpu = d->parent != NULL ? d->parent : d;
    unsigned domain, bus, slot, function;
    if (sscanf(gpu->pci_bus_id, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    memset(pci, 0, sizeof *pci);
    pci->domain = domain;
    pci->bus = bus;
    pci->device = slot;
    pci->pciDeviceId = has(gpu, NUMBER_pci_device_id) ? (uint32_t)gpu->number[NUMBER_pci_device_id] : 0;
    snprintf(pci->busId, sizeof pci->busId, "%s", gpu->pci_bus_id);
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.%X", domain & 0xffff, bus & 0xff,
             slot & 0xff, function & 0xf);
    return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t handle, int *major, int *minor) {
    ENTER_DEVICE(handle);
    uint32_t high, low;
    if (put_u32(d, NUMBER_compute_capability_major, &high) != NVML_SUCCESS ||
        put_u32(d, NUMBER_compute_capability_minor, &low) != NVML_SUCCESS)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    *major = (int)high;
    *minor = (int)low;
    return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetAddressingMode(nvmlDevice_t handle, nvmlDeviceAddressingMode_v1_t *mode) {
    ENTER_DEVICE(handle);
    if (mode->version != ADDRESSING_MODE_V1) return leave(NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    return leave(put_u32(d, NUMBER_addressing_mode, &mode->value));
}

/* ---- calls that give one number ---- */

#define GIVES(call, type, put, key)                       \
    nvmlReturn_t call(nvmlDevice_t handle, type *value) { \
        ENTER_DEVICE(handle);                             \
        return leave(put(d, NUMBER_##key, value));        \
    }
GIVES(nvmlDeviceGetMinorNumber, uint32_t, put_u32, minor_number)
GIVES(nvmlDeviceGetNumaNodeId, uint32_t, put_u32, numa_node)
GIVES(nvmlDeviceGetPersistenceMode, uint32_t, put_u32, persistence_enabled)
GIVES(nvmlDeviceGetComputeMode, uint32_t, put_u32, compute_mode)
GIVES(nvmlDeviceGetArchitecture, uint32_t, put_u32, architecture)
GIVES(nvmlDeviceGetMemoryBusWidth, uint32_t, put_u32, memory_bus_width_bits)
GIVES(nvmlDeviceGetPerformanceState, uint32_t, put_u32, performance_state)
GIVES(nvmlDeviceGetPowerState, uint32_t, put_u32, performance_state)
GIVES(nvmlDeviceGetPowerUsage, uint32_t, put_u32, power_usage_milliwatts)
GIVES(nvmlDeviceGetPowerManagementLimit, uint32_t, put_u32, power_limit_milliwatts)
GIVES(nvmlDeviceGetPowerManagementDefaultLimit, uint32_t, put_u32, power_default_limit_milliwatts)
GIVES(nvmlDeviceGetEnforcedPowerLimit, uint32_t, put_u32, power_enforced_limit_milliwatts)
GIVES(nvmlDeviceGetCurrentClocksEventReasons, uint64_t, put_u64, clocks_event_reasons)
GIVES(nvmlDeviceGetCurrentClocksThrottleReasons, uint64_t, put_u64, clocks_event_reasons)
GIVES(nvmlDeviceGetCurrPcieLinkGeneration, uint32_t, put_u32, pcie_link_generation)
GIVES(nvmlDeviceGetMaxPcieLinkGeneration, uint32_t, put_u32, pcie_link_generation)
GIVES(nvmlDeviceGetCurrPcieLinkWidth, uint32_t, put_u32, pcie_link_width)
GIVES(nvmlDeviceGetMaxPcieLinkWidth, uint32_t, put_u32, pcie_link_width)
GIVES(nvmlDeviceGetGpuInstanceId, uint32_t, put_u32, gpu_instance)
GIVES(nvmlDeviceGetComputeInstanceId, uint32_t, put_u32, compute_instance)
GIVES(nvmlDeviceGetSupportedEventTypes, uint64_t, put_u64, event_types)

/* ---- memory ---- */

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t handle, nvmlMemory_t *memory) {
    ENTER_DEVICE(handle);
    uint64_t reserved = 0;
    if (put_u64(d, NUMBER_memory_total_bytes, &memory->total) != NVML_SUCCESS)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    memory->used = 0;
    put_u64(d, NUMBER_memory_used_bytes, &memory->used);
    put_u64(d, NUMBER_memory_reserved_bytes, &reserved);
    memory->used += reserved; /* v1 counts what the driver reserves as used since driver 510 */
    memory->free = memory->total > memory->used ? memory->total - memory->used : 0;
    return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t handle, nvmlMemory_v2_t *memory) {
    ENTER_DEVICE(handle);
    if (memory->version != MEMORY_V2) return leave(NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    if (put_u64(d, NUMBER_memory_total_bytes, &memory->total) != NVML_SUCCESS)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    memory->used = memory->reserved = 0;
    put_u64(d, NUMBER_memory_used_bytes, &memory->used);
    put_u64(d, NUMBER_memory_reserved_bytes, &memory->reserved);
    uint64_t taken = memory->used + memory->reserved;
    memory->free = memory->total > taken ? memory->total - taken : 0;
    return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t handle, nvmlMemory_t *bar1) {
    ENTER_DEVICE(handle);
    if (put_u64(d, NUMBER_bar1_total_bytes, &bar1->total) != NVML_SUCCESS)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    bar1->used = 0;
    put_u64(d, NUMBER_bar1_used_bytes, &bar1->used);
    bar1->free = bar1->total - bar1->used;
    return leave(NVML_SUCCESS);
}

/* ---- power, energy, clocks, temperature, health ---- */

nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t handle, uint32_t *least,
                                                          uint32_t *most) {
    ENTER_DEVICE(handle);
    nvmlReturn_t code = put_u32(d, NUMBER_power_min_limit_milliwatts, least);
    return leave(code != NVML_SUCCESS ? code : put_u32(d, NUMBER_power_max_limit_milliwatts, most));
}

nvmlReturn_t device_energy(const device *d, uint64_t *millijoules) {
    nvmlReturn_t code = put_u64(d, NUMBER_energy_millijoules, millijoules);
    if (code != NVML_SUCCESS || !has(d, NUMBER_energy_since_nanoseconds) ||
        !has(d, NUMBER_power_average_milliwatts))
        return code;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t elapsed =
        now.tv_sec * INT64_C(1000000000) + now.tv_nsec - d->number[NUMBER_energy_since_nanoseconds];
    if (elapsed > 0)
        *millijoules +=
            (uint64_t)((double)elapsed * 1e-9 * (double)d->number[NUMBER_power_average_milliwatts]);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t handle, uint64_t *millijoules) {
    ENTER_DEVICE(handle);
    return leave(device_energy(d, millijoules));
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t handle, nvmlUtilization_t *rates) {
    ENTER_DEVICE(handle);
    nvmlReturn_t code = put_u32(d, NUMBER_utilization_gpu_percent, &rates->gpu);
    return leave(code != NVML_SUCCESS ? code : put_u32(d, NUMBER_utilization_memory_percent, &rates->memory));
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t handle, uint32_t sensor, uint32_t *celsius) {
    ENTER_DEVICE(handle);
    return leave(sensor != 0 ? NVML_ERROR_INVALID_ARGUMENT
                             : put_u32(d, NUMBER_temperature_gpu_celsius, celsius));
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t handle, nvmlTemperature_v1_t *temperature) {
    ENTER_DEVICE(handle);
    if (temperature->version != TEMPERATURE_V1) return leave(NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    if (temperature->sensorType != 0) return leave(NVML_ERROR_INVALID_ARGUMENT);
    return leave(put_u32(d, NUMBER_temperature_gpu_celsius, (uint32_t *)&temperature->temperature));
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t handle, uint32_t type, uint32_t *megahertz) {
    ENTER_DEVICE(handle);
    if (type > 3) return leave(NVML_ERROR_INVALID_ARGUMENT);
    return leave(
        put_u32(d, type == 2 ? NUMBER_clock_memory_megahertz : NUMBER_clock_sm_megahertz, megahertz));
}

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t handle, uint32_t *current, uint32_t *pending) {
    ENTER_DEVICE(handle);
    nvmlReturn_t code = put_u32(d, NUMBER_ecc_enabled, current);
    return leave(code != NVML_SUCCESS ? code : put_u32(d, NUMBER_ecc_enabled, pending));
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t handle, uint32_t error, uint32_t counter,
                                         uint64_t *count) {
    static const enum number keys[2][2] = {
        {NUMBER_ecc_corrected_volatile, NUMBER_ecc_corrected_aggregate},
        {NUMBER_ecc_uncorrected_volatile, NUMBER_ecc_uncorrected_aggregate}};
    ENTER_DEVICE(handle);
    if (error > 1 || counter > 1) return leave(NVML_ERROR_INVALID_ARGUMENT);
    return leave(put_u64(d, keys[error][counter], count));
}

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t handle, uint32_t *corrected, uint32_t *uncorrected,
                                       uint32_t *pending, uint32_t *failure) {
    ENTER_DEVICE(handle);
    nvmlReturn_t code = put_u32(d, NUMBER_remapped_rows_corrected, corrected);
    if (code == NVML_SUCCESS) code = put_u32(d, NUMBER_remapped_rows_uncorrected, uncorrected);
    if (code == NVML_SUCCESS) code = put_u32(d, NUMBER_remapped_rows_pending, pending);
    if (code == NVML_SUCCESS) code = put_u32(d, NUMBER_remapped_rows_failure, failure);
    return leave(code);
}

nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t handle, uint32_t counter, uint32_t *kilobytes) {
    ENTER_DEVICE(handle);
    if (counter > 1) return leave(NVML_ERROR_INVALID_ARGUMENT);
    return leave(
        put_u32(d, counter == 0 ? NUMBER_pcie_tx_kilobytes_per_second : NUMBER_pcie_rx_kilobytes_per_second,
                kilobytes));
}

/* ---- MIG ---- */

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t handle, uint32_t *current, uint32_t *pending) {
    ENTER_DEVICE(handle);
    nvmlReturn_t code = put_u32(d, NUMBER_mig_enabled, current);
    if (code != NVML_SUCCESS || put_u32(d, NUMBER_mig_pending, pending) == NVML_SUCCESS) return leave(code);
    return leave(put_u32(d, NUMBER_mig_enabled, pending));
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t handle, uint32_t *count) {
    ENTER_DEVICE(handle);
    *count = 0; /* also where MIG is off or unknown: the call itself is supported everywhere */
    if (d->number[NUMBER_mig_enabled] == 1) put_u32(d, NUMBER_mig_max_devices, count);
    return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t handle, uint32_t index, nvmlDevice_t *mig) {
    if (handle_uuid(handle) == NULL) return NVML_ERROR_INVALID_ARGUMENT;
    return get_handle(__func__, (target){.by = ON_MIG_INDEX, .handle = handle, .index = index}, mig);
}

nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t handle, uint32_t *is_mig) {
    ENTER_DEVICE(handle);
    *is_mig = d->parent != NULL;
    return leave(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t handle, nvmlDevice_t *gpu) {
    ENTER_DEVICE(handle);
    if (d->parent == NULL) return leave(NVML_ERROR_INVALID_ARGUMENT);
    *gpu = handle_of(d->parent);
    return leave(*gpu == NULL ? NVML_ERROR_MEMORY : NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t handle, nvmlDeviceAttributes_t *attributes) {
    ENTER_DEVICE(handle);
    if (d->parent == NULL) return leave(NVML_ERROR_NOT_SUPPORTED);
    uint64_t bytes = 0;
    memset(attributes, 0, sizeof *attributes);
    put_u32(d, NUMBER_multiprocessors, &attributes->multiprocessorCount);
    put_u32(d, NUMBER_gpu_instance_slices, &attributes->gpuInstanceSliceCount);
    put_u32(d, NUMBER_compute_instance_slices, &attributes->computeInstanceSliceCount);
    put_u64(d, NUMBER_memory_total_bytes, &bytes);
    attributes->memorySizeMB = bytes >> 20;
    return leave(NVML_SUCCESS);
}
