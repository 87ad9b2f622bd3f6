/*
 * The fake driver's running state: the present control file, initialisation, handles, open device nodes, call
 * counters, and the gate that turns the file's rules into hangs, delays, signals and errors.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "control.h"

#define SLOT_MAGIC 0x6e766d6cu
#define SLOTS 1024

/* A handle stays with its device, whatever index the device has now. */
typedef struct slot {
    uint32_t magic;
    int node;
    char uuid[96];
} slot;

/* One record of the counters file: an open-addressed table that all processes map; see control.py. */
typedef struct counter {
    uint32_t state; /* 0 free, 1 being written, 2 ready */
    uint32_t reserved;
    uint64_t count;
    char call[64], uuid[96];
} counter;
_Static_assert(sizeof(counter) == 176, "counter");

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static control *state;
static struct stat seen;
static uint64_t generation;
static char library_version[80]; /* of the file that this process has loaded: never changes after that */
static int initialised;
static int control_node = -1;
static slot slots[SLOTS];
static counter *counters;
static size_t counters_length;

void nap(void) { nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL); }

static double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* No control file: no driver on this machine. A file that cannot be understood leaves the last good state. */
static void read_again(void) {
    const char *path = getenv("FAKE_NVML_CONTROL");
    struct stat found;
    if (path == NULL || stat(path, &found) != 0) {
        control_free(state);
        state = NULL;
        memset(&seen, 0, sizeof seen);
        return;
    }
    if (found.st_ino == seen.st_ino && found.st_size == seen.st_size &&
        found.st_mtim.tv_sec == seen.st_mtim.tv_sec && found.st_mtim.tv_nsec == seen.st_mtim.tv_nsec)
        return;
    seen = found;
    control *fresh = control_parse(path);
    if (fresh == NULL) return;
    control_free(state);
    state = fresh;
    generation++;
    if (*library_version == '\0') memcpy(library_version, state->driver_version, sizeof library_version);
}

/* The library's version is that of the moment when the process loads it. */
__attribute__((constructor)) static void loaded(void) { read_again(); }

static void map_counters(void) {
    if (counters != NULL || state == NULL || *state->calls_file == '\0') return;
    int fd = open(state->calls_file, O_RDWR | O_CLOEXEC);
    struct stat found;
    if (fd < 0) return;
    if (fstat(fd, &found) == 0 && found.st_size >= (off_t)sizeof(counter)) {
        void *map = mmap(NULL, (size_t)found.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map != MAP_FAILED) {
            counters = map;
            counters_length = (size_t)found.st_size / sizeof(counter);
        }
    }
    close(fd);
}

static void count_call(const char *call, const char *uuid) {
    map_counters();
    if (counters == NULL) return;
    uint64_t hash = 1469598103934665603u; /* FNV-1a */
    for (const char *p = call; *p != '\0'; p++) hash = (hash ^ (uint8_t)*p) * 1099511628211u;
    for (const char *p = uuid; *p != '\0'; p++) hash = (hash ^ (uint8_t)*p) * 1099511628211u;
    for (size_t i = 0; i < counters_length; i++) {
        counter *c = &counters[(hash + i) % counters_length];
        uint32_t empty = 0;
        if (__atomic_compare_exchange_n(&c->state, &empty, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            snprintf(c->call, sizeof c->call, "%s", call);
            snprintf(c->uuid, sizeof c->uuid, "%s", uuid);
            __atomic_store_n(&c->state, 2, __ATOMIC_RELEASE);
        }
        while (__atomic_load_n(&c->state, __ATOMIC_ACQUIRE) != 2) sched_yield();
        if (strcmp(c->call, call) == 0 && strcmp(c->uuid, uuid) == 0) {
            __atomic_fetch_add(&c->count, 1, __ATOMIC_RELAXED);
            return;
        }
    }
}

static slot *slot_of(nvmlDevice_t handle) {
    uintptr_t at = (uintptr_t)handle, base = (uintptr_t)slots;
    if (at < base || at >= base + sizeof slots || (at - base) % sizeof(slot) != 0) return NULL;
    slot *s = handle;
    return s->magic == SLOT_MAGIC ? s : NULL;
}

const char *handle_uuid(nvmlDevice_t handle) {
    slot *s = slot_of(handle);
    return s == NULL ? NULL : s->uuid;
}

static int open_node(const char *name) {
    char path[640];
    if (*state->nodes_directory == '\0') return -1;
    snprintf(path, sizeof path, "%s/%s", state->nodes_directory, name);
    return open(path, O_RDWR | O_CLOEXEC);
}

nvmlDevice_t handle_of(const device *d) {
    slot *s = slots;
    while (s < slots + SLOTS && s->magic == SLOT_MAGIC && strcmp(s->uuid, d->uuid) != 0) s++;
    if (s == slots + SLOTS) return NULL;
    if (s->magic != SLOT_MAGIC) {
        s->magic = SLOT_MAGIC;
        s->node = -1;
        memcpy(s->uuid, d->uuid, sizeof s->uuid);
    }
    const device *gpu = d->parent != NULL ? d->parent : d;
    int64_t minor = gpu->number[NUMBER_minor_number];
    if (s->node < 0 && minor != ABSENT) {
        char name[32];
        snprintf(name, sizeof name, "nvidia%lld", (long long)minor);
        s->node = open_node(name);
    }
    return s;
}

const control *driver_state(void) { return state; }
uint64_t driver_generation(void) { return generation; }

void driver_initialise(void) {
    if (initialised++ == 0) control_node = open_node("nvidiactl");
}

nvmlReturn_t driver_shutdown(void) {
    if (--initialised > 0) return NVML_SUCCESS;
    if (control_node >= 0) close(control_node);
    control_node = -1;
    for (slot *s = slots; s < slots + SLOTS && s->magic == SLOT_MAGIC; s++) {
        if (s->node >= 0) close(s->node);
        s->node = -1;
    }
    return NVML_SUCCESS;
}

static device *resolve(const target *what) {
    const char *uuid =
        what->by == ON_HANDLE || what->by == ON_MIG_INDEX ? handle_uuid(what->handle) : what->text;
    if (state == NULL || what->by == ON_NOTHING) return NULL;
    for (device *d = state->devices; d != NULL; d = d->next) {
        switch (what->by) {
            case ON_INDEX:
                if (d->parent == NULL && d->index == (int)what->index) return d;
                break;
            case ON_MIG_INDEX:
                if (uuid != NULL && d->parent != NULL && strcmp(d->parent->uuid, uuid) == 0 &&
                    d->index == (int)what->index)
                    return d;
                break;
            case ON_BUS_ID:
                if (d->parent == NULL && strcasecmp(d->pci_bus_id, what->text) == 0) return d;
                break;
            default:
                if (uuid != NULL && strcmp(d->uuid, uuid) == 0) return d;
        }
    }
    return NULL;
}

static const rule *match(const rule *rules, enum rule_kind kind, const char *call) {
    for (; rules != NULL; rules = rules->next)
        if (rules->kind == kind && fnmatch(rules->call, call, 0) == 0) return rules;
    return NULL;
}

/* The nearest rule speaks: of the MIG device, else of its GPU, else of the driver. */
static const rule *find_rule(const device *d, enum rule_kind kind, const char *call) {
    for (; d != NULL; d = d->parent) {
        const rule *r = match(d->rules, kind, call);
        if (r != NULL) return r;
    }
    return state == NULL ? NULL : match(state->rules, kind, call);
}

static void send_signal(int number) {
    signal(number, SIG_DFL);
    pthread_mutex_unlock(&lock);
    raise(number);
    pthread_mutex_lock(&lock);
}

/* `owner` is the GPU that was asked for a MIG device, else NULL. */
static nvmlReturn_t why_absent(const target *what, const device *owner) {
    if (owner != NULL)
        return owner->number[NUMBER_mig_enabled] == ABSENT ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_NOT_FOUND;
    if (what->by == ON_INDEX) return NVML_ERROR_INVALID_ARGUMENT;
    if (what->by == ON_HANDLE || what->by == ON_MIG_INDEX) {
        const char *uuid = handle_uuid(what->handle);
        if (uuid == NULL || strncmp(uuid, "MIG-", 4) == 0) return NVML_ERROR_INVALID_ARGUMENT;
        return NVML_ERROR_GPU_IS_LOST;
    }
    return NVML_ERROR_NOT_FOUND;
}

/* `judged` is the device whose rules hold: the one asked for, or the GPU that lacks that MIG device. */
static nvmlReturn_t verdict(const char *call, const target *what, bool needs_init, const device *d,
                            const device *judged) {
    if (state == NULL)
        return initialised || seen.st_ino != 0 ? NVML_ERROR_UNKNOWN : NVML_ERROR_DRIVER_NOT_LOADED;
    if (needs_init && initialised == 0) return NVML_ERROR_UNINITIALIZED;
    const rule *error = find_rule(judged, RULE_ERROR, call);
    if (error != NULL && error->value != NVML_SUCCESS) return (nvmlReturn_t)error->value;
    if (strcmp(library_version, state->module_version) != 0) return NVML_ERROR_LIB_RM_VERSION_MISMATCH;
    if (what->by == ON_NOTHING) return NVML_SUCCESS;
    if (judged != NULL) {
        const device *gpu = judged->parent != NULL ? judged->parent : judged;
        if (gpu->number[NUMBER_lost] == 1) return NVML_ERROR_GPU_IS_LOST;
    }
    return d != NULL ? NVML_SUCCESS : why_absent(what, judged);
}

nvmlReturn_t enter(const char *call, target what, bool needs_init, device **found) {
    double start = now_seconds();
    const target owner = {.by = what.by == ON_MIG_INDEX ? ON_HANDLE : ON_NOTHING, .handle = what.handle};
    device *d, *judged;
    pthread_mutex_lock(&lock);
    for (bool first = true;; first = false) {
        read_again();
        d = resolve(&what);
        judged = d != NULL ? d : resolve(&owner);
        if (first) {
            count_call(call, judged == NULL ? "" : judged->uuid);
            const rule *r = find_rule(judged, RULE_SIGNAL, call);
            if (r != NULL) {
                send_signal((int)r->value);
                continue;
            }
        }
        const rule *delay = find_rule(judged, RULE_DELAY, call);
        bool hang = find_rule(judged, RULE_HANG, call) != NULL;
        if (!hang && (delay == NULL || now_seconds() - start >= delay->value)) break;
        pthread_mutex_unlock(&lock);
        nap();
        pthread_mutex_lock(&lock);
    }
    nvmlReturn_t code = verdict(call, &what, needs_init, d, judged);
    *found = d;
    if (code != NVML_SUCCESS) pthread_mutex_unlock(&lock);
    return code;
}

nvmlReturn_t leave(nvmlReturn_t code) {
    pthread_mutex_unlock(&lock);
    return code;
}

void driver_lock_fresh(void) {
    pthread_mutex_lock(&lock);
    read_again();
}

void driver_unlock(void) { pthread_mutex_unlock(&lock); }
