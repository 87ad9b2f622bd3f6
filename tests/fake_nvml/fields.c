/*
 * nvmlDeviceGetFieldValues: each field with its own type and return code.
 */
#define _GNU_SOURCE
#include <string.h>
#include <time.h>

#include "calls.h"

typedef struct known_field {
    uint32_t id, type;
    enum number key;
} known_field;

/* Field numbers of pynvml.py (NVML_FI_DEV_...) that follow from a device's numbers. */
static const known_field known_fields[] = {
    {1, VALUE_U32, NUMBER_ecc_enabled},
    {3, VALUE_U64, NUMBER_ecc_corrected_volatile},
    {4, VALUE_U64, NUMBER_ecc_uncorrected_volatile},
    {5, VALUE_U64, NUMBER_ecc_corrected_aggregate},
    {6, VALUE_U64, NUMBER_ecc_uncorrected_aggregate},
    {82, VALUE_U32, NUMBER_temperature_memory_celsius},
    {142, VALUE_U32, NUMBER_remapped_rows_corrected},
    {143, VALUE_U32, NUMBER_remapped_rows_uncorrected},
    {144, VALUE_U32, NUMBER_remapped_rows_pending},
    {145, VALUE_U32, NUMBER_remapped_rows_failure},
    {185, VALUE_U32, NUMBER_power_average_milliwatts},
    {186, VALUE_U32, NUMBER_power_instant_milliwatts},
    {187, VALUE_U32, NUMBER_power_min_limit_milliwatts},
    {188, VALUE_U32, NUMBER_power_max_limit_milliwatts},
    {189, VALUE_U32, NUMBER_power_default_limit_milliwatts},
    {190, VALUE_U32, NUMBER_power_enforced_limit_milliwatts},
    {192, VALUE_U32, NUMBER_power_limit_milliwatts},
};

#define FIELD_TOTAL_ENERGY 83

static nvmlReturn_t known_value(const device *d, nvmlFieldValue_t *v) {
    if (v->scopeId != SCOPE_GPU) return NVML_ERROR_NOT_SUPPORTED;
    if (v->fieldId == FIELD_TOTAL_ENERGY) {
        v->valueType = VALUE_U64;
        return device_energy(d, &v->value.ullVal);
    }
    for (size_t i = 0; i < sizeof known_fields / sizeof *known_fields; i++) {
        if (known_fields[i].id != v->fieldId) continue;
        v->valueType = known_fields[i].type;
        return v->valueType == VALUE_U32 ? put_u32(d, known_fields[i].key, &v->value.uiVal)
                                         : put_u64(d, known_fields[i].key, &v->value.ullVal);
    }
    return NVML_ERROR_NOT_SUPPORTED;
}

static void fill_field(const device *d, nvmlFieldValue_t *v) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    v->timestamp = now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000;
    v->latencyUsec = 0;
    v->valueType = VALUE_DOUBLE;
    /* Rubbish where the value's type does not reach: a reader must look at valueType and nvmlReturn. */
    memset(&v->value, 0xAA, sizeof v->value);
    for (const field *f = d->fields; f != NULL; f = f->next) {
        if (f->id != v->fieldId || (f->scope != UINT32_MAX && f->scope != v->scopeId)) continue;
        v->valueType = f->type;
        v->nvmlReturn = f->status;
        if (f->status == NVML_SUCCESS) v->value = f->value;
        return;
    }
    v->nvmlReturn = known_value(d, v);
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t handle, int count, nvmlFieldValue_t *values) {
    ENTER_DEVICE(handle);
    if (count < 1 || values == NULL) return leave(NVML_ERROR_INVALID_ARGUMENT);
    for (int i = 0; i < count; i++) fill_field(d, &values[i]);
    return leave(NVML_SUCCESS);
}
