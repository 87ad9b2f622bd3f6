/*
 * State of the fake driver: what the control file says, read again whenever the file changes, and the gate
 * that every exported call passes (counting, signals, hangs, delays, errors). The file's language is in
 * README.md.
 */
#ifndef FAKE_NVML_CONTROL_H
#define FAKE_NVML_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nvml_abi.h"

/* A device's numbers, by their words in the control file. */
enum number {
#define X(name) NUMBER_##name,
#include "numbers.def"
#undef X
    NUMBER_COUNT
};
#define ABSENT INT64_MIN /* not in the file: "not supported" by that device */

enum rule_kind { RULE_ERROR, RULE_DELAY, RULE_HANG, RULE_SIGNAL };
enum process_kind { PROCESS_COMPUTE, PROCESS_GRAPHICS, PROCESS_MPS, PROCESS_ANY };

typedef struct rule {
    enum rule_kind kind;
    char call[64]; /* shell pattern, fnmatch(3) */
    double value;  /* error: code; delay: seconds; signal: number */
    struct rule *next;
} rule;

typedef struct process {
    enum process_kind kind;
    nvmlProcessInfo_t info;
    struct process *next;
} process;

typedef struct field {
    uint32_t id, scope; /* scope UINT32_MAX: any */
    uint32_t type;
    nvmlReturn_t status;
    nvmlValue_t value;
    struct field *next;
} field;

typedef struct event {
    uint64_t sequence;
    char uuid[96];
    uint64_t type, data;
    struct event *next;
} event;

typedef struct device {
    char uuid[96], name[96], pci_bus_id[32], serial[32];
    int64_t number[NUMBER_COUNT];
    uint32_t process_growth;
    int64_t process_growth_calls; /* < 0: every filling call */
    rule *rules;
    process *processes;
    field *fields;
    struct device *parent; /* of a MIG device, else NULL */
    int index;             /* of a GPU among the GPUs; of a MIG device its mig_index */
    struct device *next;   /* in the file's order, GPUs and MIG devices mixed */
} device;

typedef struct control {
    char driver_version[80], module_version[80], nvml_version[80];
    char nodes_directory[512], calls_file[512];
    int64_t cuda_version, count;
    rule *rules;
    event *events;
    device *devices;
    int gpus;
} control;

/* Parses a control file. NULL, after a line on standard error, when it cannot be understood. */
control *control_parse(const char *path);
void control_free(control *c);

/* What an exported call is about. */
typedef struct target {
    enum { ON_NOTHING, ON_HANDLE, ON_INDEX, ON_UUID, ON_BUS_ID, ON_MIG_INDEX } by;
    nvmlDevice_t handle; /* ON_HANDLE, ON_MIG_INDEX (the parent) */
    const char *text;    /* ON_UUID, ON_BUS_ID */
    uint32_t index;      /* ON_INDEX, ON_MIG_INDEX */
} target;

/*
 * Every exported call begins here. Counts the call, then obeys the rules that match it: sends the signal,
 * hangs until released, delays, fails. On NVML_SUCCESS the driver lock is held until leave(), *found is the
 * device asked for (NULL for ON_NOTHING) and driver_state() stays valid; on any other code the lock is not
 * held.
 */
nvmlReturn_t enter(const char *call, target what, bool needs_init, device **found);
nvmlReturn_t leave(nvmlReturn_t code);

/* The next functions are for callers that hold the lock. */
const control *driver_state(void);
uint64_t driver_generation(void);
void driver_initialise(void);
nvmlReturn_t driver_shutdown(void);
nvmlDevice_t handle_of(const device *d);      /* opens the device's node; NULL when the table is full */
const char *handle_uuid(nvmlDevice_t handle); /* NULL when it is no handle */

/* For callers in a wait loop, who do not hold the lock: reads the control file again and takes the lock. */
void driver_lock_fresh(void);
void driver_unlock(void);
void nap(void);

#endif
