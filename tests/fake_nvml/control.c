/*
 * Reads the control file: line by line, a word and its values, in sections [driver], [device], [mig].
 * A file that cannot be understood is refused as a whole, with its line, so that a typing error is never a
 * quiet change of behaviour.
 */
#define _GNU_SOURCE
#include "control.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const number_names[] = {
#define X(name) #name,
#include "numbers.def"
#undef X
};
static const char *const kind_names[] = {"compute", "graphics", "mps"};
static const char *const rule_names[] = {"error", "delay", "hang", "signal"};

typedef struct reader {
    control *state;
    device *device, *gpu;
    device **last_device;
} reader;

static void *make(size_t size) {
    void *p = calloc(1, size);
    if (p == NULL) abort();
    return p;
}

/* New elements go to the end, so that the file's order is the order of precedence. */
#define APPEND(list, element)                        \
    do {                                             \
        __typeof__(list) *end_ = &(list);            \
        while (*end_ != NULL) end_ = &(*end_)->next; \
        *end_ = (element);                           \
    } while (0)

#define FREE_LIST(list)                                                 \
    for (__typeof__(list) e_ = (list), next_; e_ != NULL; e_ = next_) { \
        next_ = e_->next;                                               \
        free(e_);                                                       \
    }

void control_free(control *c) {
    if (c == NULL) return;
    for (device *d = c->devices, *next; d != NULL; d = next) {
        next = d->next;
        FREE_LIST (d->rules)
            FREE_LIST (d->processes)
                FREE_LIST (d->fields) free(d);
    }
    FREE_LIST (c->rules)
        FREE_LIST (c->events) free(c);
}

static bool copy_text(char *to, size_t size, const char *text) {
    return snprintf(to, size, "%s", text) < (int)size;
}

static bool parse_number(const char *text, int64_t *value) {
    char *end;
    errno = 0;
    unsigned long long u = strtoull(text, &end, 0);
    *value = (int64_t)u;
    return errno == 0 && end != text && *end == '\0';
}

static bool parse_rule(rule **rules, const char *word, const char *rest) {
    for (size_t i = 0; i < sizeof rule_names / sizeof *rule_names; i++) {
        if (strcmp(word, rule_names[i]) != 0) continue;
        rule *r = make(sizeof *r);
        r->kind = (enum rule_kind)i;
        int wanted = r->kind == RULE_HANG ? 1 : 2, used = 0;
        bool ok = wanted == 1 ? sscanf(rest, "%63s %n", r->call, &used) == 1
                              : sscanf(rest, "%63s %lf %n", r->call, &r->value, &used) == 2;
        APPEND(*rules, r);
        return ok && rest[used] == '\0';
    }
    return false;
}

static bool parse_process(device *d, const char *rest) {
    char kind[16];
    int64_t bytes;
    process *p = make(sizeof *p);
    p->info.gpuInstanceId = p->info.computeInstanceId = NO_INSTANCE;
    APPEND(d->processes, p);
    if (sscanf(rest, "%15s %" SCNu32 " %" SCNd64 " %" SCNu32 " %" SCNu32, kind, &p->info.pid, &bytes,
               &p->info.gpuInstanceId, &p->info.computeInstanceId) < 3)
        return false;
    p->info.usedGpuMemory = bytes < 0 ? VALUE_NOT_AVAILABLE : (uint64_t)bytes;
    for (int i = 0; i < PROCESS_ANY; i++) {
        if (strcmp(kind, kind_names[i]) != 0) continue;
        p->kind = (enum process_kind)i;
        return true;
    }
    return false;
}

static field *add_field(device *d, const char *id, const char *scope) {
    int64_t number;
    field *f = make(sizeof *f);
    APPEND(d->fields, f);
    if (!parse_number(id, &number)) return NULL;
    f->id = (uint32_t)number;
    f->scope = UINT32_MAX;
    if (strcmp(scope, "*") != 0) {
        if (!parse_number(scope, &number)) return NULL;
        f->scope = (uint32_t)number;
    }
    return f;
}

static bool parse_field(device *d, const char *rest) {
    char id[16], scope[16], type[16], value[64];
    if (sscanf(rest, "%15s %15s %15s %63s", id, scope, type, value) != 4) return false;
    field *f = add_field(d, id, scope);
    if (f == NULL) return false;
    memset(&f->value, 0xAA, sizeof f->value);
    int64_t number = 0;
    if (strcmp(type, "double") == 0) {
        f->type = VALUE_DOUBLE;
        return sscanf(value, "%lf", &f->value.dVal) == 1;
    }
    if (!parse_number(value, &number)) return false;
    if (strcmp(type, "u32") == 0) {
        f->type = VALUE_U32;
        f->value.uiVal = (uint32_t)number;
    } else if (strcmp(type, "u64") == 0) {
        f->type = VALUE_U64;
        f->value.ullVal = (uint64_t)number;
    } else if (strcmp(type, "i64") == 0) {
        f->type = VALUE_I64;
        f->value.sllVal = number;
    } else {
        return false;
    }
    return true;
}

static bool parse_field_error(device *d, const char *rest) {
    char id[16], scope[16];
    int code;
    if (sscanf(rest, "%15s %15s %d", id, scope, &code) != 3) return false;
    field *f = add_field(d, id, scope);
    if (f == NULL) return false;
    f->status = code;
    return true;
}

static bool parse_device_line(device *d, const char *word, const char *rest) {
    if (strcmp(word, "uuid") == 0) return copy_text(d->uuid, sizeof d->uuid, rest);
    if (strcmp(word, "name") == 0) return copy_text(d->name, sizeof d->name, rest);
    if (strcmp(word, "pci_bus_id") == 0) return copy_text(d->pci_bus_id, sizeof d->pci_bus_id, rest);
    if (strcmp(word, "serial") == 0) return copy_text(d->serial, sizeof d->serial, rest);
    if (strcmp(word, "process") == 0) return parse_process(d, rest);
    if (strcmp(word, "field") == 0) return parse_field(d, rest);
    if (strcmp(word, "field_error") == 0) return parse_field_error(d, rest);
    if (strcmp(word, "process_growth") == 0) {
        d->process_growth_calls = -1;
        return sscanf(rest, "%" SCNu32 " %" SCNd64, &d->process_growth, &d->process_growth_calls) >= 1;
    }
    for (int i = 0; i < NUMBER_COUNT; i++)
        if (strcmp(word, number_names[i]) == 0) return parse_number(rest, &d->number[i]);
    return parse_rule(&d->rules, word, rest);
}

static bool parse_event(control *c, const char *rest) {
    event *e = make(sizeof *e);
    APPEND(c->events, e);
    int64_t type, data;
    if (sscanf(rest, "%" SCNu64 " %95s %" SCNi64 " %" SCNi64, &e->sequence, e->uuid, &type, &data) != 4)
        return false;
    e->type = (uint64_t)type;
    e->data = (uint64_t)data;
    return true;
}

static bool parse_driver_line(control *c, const char *word, const char *rest) {
    if (strcmp(word, "driver_version") == 0)
        return copy_text(c->driver_version, sizeof c->driver_version, rest);
    if (strcmp(word, "module_version") == 0)
        return copy_text(c->module_version, sizeof c->module_version, rest);
    if (strcmp(word, "nvml_version") == 0) return copy_text(c->nvml_version, sizeof c->nvml_version, rest);
    if (strcmp(word, "nodes_directory") == 0)
        return copy_text(c->nodes_directory, sizeof c->nodes_directory, rest);
    if (strcmp(word, "calls_file") == 0) return copy_text(c->calls_file, sizeof c->calls_file, rest);
    if (strcmp(word, "cuda_version") == 0) return parse_number(rest, &c->cuda_version);
    if (strcmp(word, "count") == 0) return parse_number(rest, &c->count);
    if (strcmp(word, "event") == 0) return parse_event(c, rest);
    return parse_rule(&c->rules, word, rest);
}

static bool begin_section(reader *r, const char *word) {
    if (strcmp(word, "[driver]") == 0) {
        r->device = NULL;
        return true;
    }
    bool mig = strcmp(word, "[mig]") == 0;
    if (!mig && strcmp(word, "[device]") != 0) return false;
    if (mig && r->gpu == NULL) return false;
    device *d = make(sizeof *d);
    for (int i = 0; i < NUMBER_COUNT; i++) d->number[i] = ABSENT;
    d->process_growth_calls = -1;
    d->parent = mig ? r->gpu : NULL;
    if (!mig) {
        d->index = r->state->gpus++;
        r->gpu = d;
    }
    *r->last_device = d;
    r->last_device = &d->next;
    r->device = d;
    return true;
}

static bool parse_line(reader *r, char *line) {
    line += strspn(line, " \t");
    line[strcspn(line, "\r\n")] = '\0';
    for (size_t n = strlen(line); n > 0 && (line[n - 1] == ' ' || line[n - 1] == '\t'); n--)
        line[n - 1] = '\0';
    if (*line == '\0' || *line == '#') return true;
    if (*line == '[') return begin_section(r, line);
    char *rest = line + strcspn(line, " \t");
    if (*rest != '\0') *rest++ = '\0';
    rest += strspn(rest, " \t");
    return r->device != NULL ? parse_device_line(r->device, line, rest)
                             : parse_driver_line(r->state, line, rest);
}

/* Whole-file rules: identities are there and unique, a MIG device's processes carry its instances. */
static const char *complete(control *c) {
    if (*c->module_version == '\0') copy_text(c->module_version, sizeof c->module_version, c->driver_version);
    for (device *d = c->devices; d != NULL; d = d->next) {
        if (*d->uuid == '\0') return "a device has no uuid";
        for (device *other = d->next; other != NULL; other = other->next)
            if (strcmp(d->uuid, other->uuid) == 0) return "two devices have the same uuid";
        if (d->parent == NULL) continue;
        d->index = (int)(d->number[NUMBER_mig_index] == ABSENT ? 0 : d->number[NUMBER_mig_index]);
        for (process *p = d->processes; p != NULL; p = p->next) {
            if (p->info.gpuInstanceId != NO_INSTANCE) continue;
            p->info.gpuInstanceId = (uint32_t)d->number[NUMBER_gpu_instance];
            p->info.computeInstanceId = (uint32_t)d->number[NUMBER_compute_instance];
        }
    }
    return NULL;
}

control *control_parse(const char *path) {
    FILE *file = fopen(path, "re");
    if (file == NULL) return NULL;
    control *c = make(sizeof *c);
    c->count = c->cuda_version = ABSENT;
    reader r = {.state = c, .last_device = &c->devices};
    const char *problem = NULL;
    char *line = NULL;
    size_t size = 0;
    int number = 0;
    while (problem == NULL && getline(&line, &size, file) >= 0) {
        number++;
        if (!parse_line(&r, line)) problem = "not understood";
    }
    fclose(file);
    if (problem == NULL) {
        number = 0;
        problem = complete(c);
    }
    if (problem != NULL) {
        fprintf(stderr, "fake_nvml: %s:%d: %s: %s\n", path, number, problem, line == NULL ? "" : line);
        control_free(c);
        c = NULL;
    }
    free(line);
    return c;
}
