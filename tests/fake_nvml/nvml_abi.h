/*
 * The part of NVML's binary interface that the fake driver speaks: return codes, structs, field numbers.
 * Facts: NVML API reference, checked against pynvml.py of nvidia-ml-py 13.615.71; a version tag such as
 * 0x02000028 holds the struct's size in its low bytes, so the static assertions below check the layout.
 */
#ifndef FAKE_NVML_ABI_H
#define FAKE_NVML_ABI_H

#include <stdint.h>

typedef int nvmlReturn_t;
typedef void *nvmlDevice_t;
typedef void *nvmlEventSet_t;

enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_TIMEOUT = 10,
    NVML_ERROR_GPU_IS_LOST = 15,
    NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
    NVML_ERROR_MEMORY = 20,
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
    NVML_ERROR_UNKNOWN = 999,
};

enum { VALUE_DOUBLE = 0, VALUE_U32 = 1, VALUE_U64 = 3, VALUE_I64 = 4 };
enum { SCOPE_GPU = 0, SCOPE_MODULE = 1, SCOPE_MEMORY = 2 };

#define VALUE_NOT_AVAILABLE UINT64_MAX
#define NO_INSTANCE UINT32_MAX

typedef struct {
    uint64_t total, free, used;
} nvmlMemory_t;

typedef struct {
    uint32_t version;
    uint64_t total, reserved, free, used;
} nvmlMemory_v2_t;
#define MEMORY_V2 0x02000028u
_Static_assert(sizeof(nvmlMemory_v2_t) == 0x28, "nvmlMemory_v2_t");

typedef struct {
    uint32_t pid;
    uint64_t usedGpuMemory;
    uint32_t gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;
_Static_assert(sizeof(nvmlProcessInfo_t) == 24, "nvmlProcessInfo_t (v2 and v3)");

typedef struct {
    uint32_t pid;
    uint64_t usedGpuMemory;
    uint32_t gpuInstanceId, computeInstanceId;
    uint64_t usedGpuCcProtectedMemory;
} nvmlProcessDetail_v1_t;

typedef struct {
    uint32_t version, mode, numProcArrayEntries;
    nvmlProcessDetail_v1_t *procArray;
} nvmlProcessDetailList_v1_t;
#define PROCESS_DETAIL_LIST_V1 0x1000018u
_Static_assert(sizeof(nvmlProcessDetailList_v1_t) == 0x18, "nvmlProcessDetailList_v1_t");

typedef struct {
    uint32_t gpu, memory;
} nvmlUtilization_t;

typedef union {
    double dVal;
    uint32_t uiVal;
    uint64_t ullVal;
    int64_t sllVal;
} nvmlValue_t;

typedef struct {
    uint32_t fieldId, scopeId;
    int64_t timestamp, latencyUsec;
    uint32_t valueType;
    nvmlReturn_t nvmlReturn;
    nvmlValue_t value;
} nvmlFieldValue_t;
_Static_assert(sizeof(nvmlFieldValue_t) == 40, "nvmlFieldValue_t");

typedef struct {
    nvmlDevice_t device;
    uint64_t eventType, eventData;
    uint32_t gpuInstanceId, computeInstanceId;
} nvmlEventData_t;
_Static_assert(sizeof(nvmlEventData_t) == 32, "nvmlEventData_t");

typedef struct {
    char busIdLegacy[16];
    uint32_t domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;
_Static_assert(sizeof(nvmlPciInfo_t) == 68, "nvmlPciInfo_t (v3)");

typedef struct {
    uint32_t version, sensorType;
    int32_t temperature;
} nvmlTemperature_v1_t;
#define TEMPERATURE_V1 0x100000Cu
_Static_assert(sizeof(nvmlTemperature_v1_t) == 0xC, "nvmlTemperature_v1_t");

typedef struct {
    uint32_t version, value;
} nvmlDeviceAddressingMode_v1_t;
#define ADDRESSING_MODE_V1 0x1000008u
_Static_assert(sizeof(nvmlDeviceAddressingMode_v1_t) == 8, "nvmlDeviceAddressingMode_v1_t");

typedef struct {
    uint32_t multiprocessorCount, sharedCopyEngineCount, sharedDecoderCount, sharedEncoderCount,
        sharedJpegCount, sharedOfaCount, gpuInstanceSliceCount, computeInstanceSliceCount;
    uint64_t memorySizeMB;
} nvmlDeviceAttributes_t;

#endif
