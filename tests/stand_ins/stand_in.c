/* One process of a stand-in engine: it keeps the command line it was started with, takes a title, starts its
 * children, and answers HTTP from files. Everything it is to do stands in the folder named by STAND_IN:
 *
 *   setup   lines: comm NAME | title TEXT | listen ADDRESS PORT FOLDER | child FOLDER | namespace | outlive
 *   argv, environ   of a child, as /proc shows them: strings that end in NUL
 *   pid     written here, once everything is done, with the pid that the host sees
 *
 * Answers: the file of a path (its slashes underscores, without the query) is the whole HTTP response; there is
 * none: 404. While a file `hang` exists nothing is answered. `requests` collects what was asked.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LONGEST_LIFE_SECONDS 300
#define MOST_CHILDREN 64
#define MOST_STRINGS 256
#define MOST_BYTES 65536

extern char **environ;
static char answers[512];
static pthread_mutex_t asking = PTHREAD_MUTEX_INITIALIZER;

static void die(const char *what) {
    perror(what);
    _exit(1);
}

static void put_together(char *out, size_t size, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int written = vsnprintf(out, size, format, arguments);
    va_end(arguments);
    if (written < 0 || (size_t)written >= size) {
        errno = ENAMETOOLONG;
        die("path");
    }
}

static char *content(const char *path, size_t *length) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return NULL;
    struct stat about;
    if (fstat(file, &about) != 0) die(path);
    char *text = malloc((size_t)about.st_size + 1);
    size_t have = 0;
    ssize_t got;
    while (have < (size_t)about.st_size && (got = read(file, text + have, (size_t)about.st_size - have)) > 0)
        have += (size_t)got;
    close(file);
    text[have] = 0;
    *length = have;
    return text;
}

static char **strings(const char *folder, const char *name, const char *extra) {
    char path[600];
    put_together(path, sizeof path, "%s/%s", folder, name);
    size_t length = 0;
    char *text = content(path, &length);
    if (text == NULL) die(path);
    char **list = calloc(MOST_STRINGS + 2, sizeof *list);
    int count = 0;
    for (char *at = text; at < text + length && count < MOST_STRINGS; at += strlen(at) + 1) list[count++] = at;
    if (extra != NULL) list[count] = strdup(extra);
    return list;
}

static void start_child(const char *folder) {
    char variable[600];
    put_together(variable, sizeof variable, "STAND_IN=%s", folder);
    char **arguments = strings(folder, "argv", NULL), **variables = strings(folder, "environ", variable);
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child > 0) return;
    execve("/proc/self/exe", arguments, variables);
    die("execve");
}

/* As setproctitle does: over the arguments and the environment, the rest NUL. */
static void take_title(char **arguments, const char *title) {
    char *start = arguments[0], *end = start;
    for (char **one = arguments; *one != NULL; one++)
        if (*one == end) end += strlen(*one) + 1;
    for (char **one = environ; *one != NULL; one++)
        if (*one == end) end += strlen(*one) + 1;
    memset(start, 0, (size_t)(end - start));
    size_t length = strlen(title);
    if (length >= (size_t)(end - start)) length = (size_t)(end - start) - 1;
    memcpy(start, title, length);
}

static void send_all(int peer, const char *text, size_t length) {
    while (length > 0) {
        ssize_t sent = send(peer, text, length, MSG_NOSIGNAL);
        if (sent <= 0) return;
        text += sent;
        length -= (size_t)sent;
    }
}

static void note(const char *request) {
    char path[600];
    put_together(path, sizeof path, "%s/requests", answers);
    pthread_mutex_lock(&asking);
    FILE *file = fopen(path, "ae");
    if (file != NULL) {
        fprintf(file, "%s\n", request);
        fclose(file);
    }
    pthread_mutex_unlock(&asking);
}

static void *serve(void *argument) {
    static const char missing[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    int peer = (int)(long)argument;
    char request[MOST_BYTES], target[256] = "", path[900];
    size_t have = 0;
    ssize_t got;
    while (have + 1 < sizeof request && (got = recv(peer, request + have, sizeof request - 1 - have, 0)) > 0) {
        have += (size_t)got;
        request[have] = 0;
        if (strstr(request, "\r\n\r\n") != NULL) break;
    }
    if (have == 0 || sscanf(request, "%*s %255s", target) != 1) {
        close(peer);
        return NULL;
    }
    note(request);
    put_together(path, sizeof path, "%s/hang", answers);
    while (access(path, F_OK) == 0) usleep(20000);
    target[strcspn(target, "?")] = 0;
    for (char *at = target; *at; at++)
        if (*at == '/') *at = '_';
    put_together(path, sizeof path, "%s/%s", answers, target);
    size_t length = 0;
    char *text = content(path, &length);
    if (text != NULL) send_all(peer, text, length);
    else send_all(peer, missing, sizeof missing - 1);
    free(text);
    shutdown(peer, SHUT_WR);
    close(peer);
    return NULL;
}

static void *accept_all(void *argument) {
    int door = (int)(long)argument;
    for (;;) {
        int peer = accept4(door, NULL, NULL, SOCK_CLOEXEC);
        pthread_t thread;
        if (peer < 0) continue;
        if (pthread_create(&thread, NULL, serve, (void *)(long)peer) != 0) close(peer);
        else pthread_detach(thread);
    }
    return NULL;
}

static void listen_on(const char *address, int port) {
    int door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (inet_pton(AF_INET, address, &where.sin_addr) != 1) die("address");
    if (bind(door, (struct sockaddr *)&where, sizeof where) != 0 || listen(door, 64) != 0) die("listen");
    pthread_t thread;
    if (pthread_create(&thread, NULL, accept_all, (void *)(long)door) != 0) die("thread");
}

static void report(const char *folder) {
    char pid[32] = "", fresh[600], path[600];
    if (readlink("/proc/self", pid, sizeof pid - 1) < 0) die("/proc/self");
    put_together(fresh, sizeof fresh, "%s/pid.new", folder);
    put_together(path, sizeof path, "%s/pid", folder);
    FILE *file = fopen(fresh, "we");
    if (file == NULL || fprintf(file, "%s", pid) < 0 || fclose(file) != 0 || rename(fresh, path) != 0) die(path);
}

int main(int count, char **arguments) {
    (void)count;
    const char *variable = getenv("STAND_IN");
    if (variable == NULL) return 2;
    char folder[512], path[600], title[256] = "", comm[64] = "", address[64], child[512];
    put_together(folder, sizeof folder, "%s", variable);
    put_together(path, sizeof path, "%s/setup", folder);
    alarm(LONGEST_LIFE_SECONDS);
    signal(SIGCHLD, SIG_IGN);
    size_t length = 0;
    int outlive = 0, port;
    char *setup = content(path, &length), *kept = NULL;
    if (setup == NULL) die(path);
    if (strstr(setup, "outlive\n") != NULL) outlive = 1;
    if (!outlive) prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (char *line = strtok_r(setup, "\n", &kept); line != NULL; line = strtok_r(NULL, "\n", &kept)) {
        if (sscanf(line, "comm %63[^\n]", comm) == 1) continue;
        if (sscanf(line, "title %255[^\n]", title) == 1) continue;
        if (sscanf(line, "listen %63s %d %511[^\n]", address, &port, answers) == 3) listen_on(address, port);
        else if (sscanf(line, "child %511[^\n]", child) == 1) start_child(child);
        else if (strcmp(line, "namespace") == 0 && unshare(CLONE_NEWPID) != 0 && errno != EPERM) die("unshare");
    }
    if (comm[0]) prctl(PR_SET_NAME, comm);
    if (title[0]) take_title(arguments, title);
    report(folder);
    for (;;) pause();
}
