/* Faults at the calls by which a process changes files, for the tests: loaded into it with LD_PRELOAD.

   Calls that touch files under one folder are counted: opening for writing, renaming, removing, making folders, syncing
   and reserving space, and, where asked for, writing. At call number `at` the process is killed, is sent Ctrl-C, or
   finds the disk full; a full disk stays full. It stands beneath Python, so that files written by Rust and C++ code
   are met as well. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { COUNT, KILL, INTERRUPT, FULL };
enum { TAKES, FREES, WRITES }; /* what a call does to the space on the disk */

static char folder[PATH_MAX];
static long seen, at;
static int action, with_writes;

void fault_arm(const char *where, long call, int what, int writes) {
    strncpy(folder, where, sizeof folder - 1);
    seen = 0, at = call, action = what, with_writes = writes;
}

long fault_seen(void) { return seen; }

static int under(const char *path) {
    char whole[PATH_MAX];
    if (!folder[0] || !path) return 0;
    if (path[0] != '/') {
        if (!getcwd(whole, sizeof whole)) return 0;
        strncat(whole, "/", sizeof whole - strlen(whole) - 1);
        strncat(whole, path, sizeof whole - strlen(whole) - 1);
        path = whole;
    }
    return strncmp(path, folder, strlen(folder)) == 0;
}

static int under_fd(int fd) {
    char link[64], path[PATH_MAX];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return under(path);
}

static int under_at(int dir, const char *path) {
    return dir == AT_FDCWD || path[0] == '/' ? under(path) : under_fd(dir);
}

/* Whether the call is to fail. */
static int fault(int touches, int kind) {
    if (!touches || (kind == WRITES && !with_writes)) return 0;
    seen++;
    if (seen == at && action == KILL) raise(SIGKILL);
    if (seen == at && action == INTERRUPT) raise(SIGINT);
    if (action == FULL && at && seen >= at && (kind != FREES || seen == at)) {
        errno = kind == FREES ? EIO : ENOSPC;
        return 1;
    }
    return 0;
}

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define OPEN(name, name_at) \
    int name(const char *path, int flags, ...) { \
        REAL(int, #name, const char *, int, ...); \
        va_list rest; va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        if (fault((flags & O_ACCMODE) != O_RDONLY && under(path), TAKES)) return -1; \
        return real(path, flags, mode); \
    } \
    int name_at(int dir, const char *path, int flags, ...) { \
        REAL(int, #name_at, int, const char *, int, ...); \
        va_list rest; va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        if (fault((flags & O_ACCMODE) != O_RDONLY && under_at(dir, path), TAKES)) return -1; \
        return real(dir, path, flags, mode); \
    }
OPEN(open, openat)
OPEN(open64, openat64)

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) { \
        REAL(FILE *, #name, const char *, const char *); \
        if (fault(strpbrk(mode, "wa+") && under(path), TAKES)) return NULL; \
        return real(path, mode); \
    }
FOPEN(fopen)
FOPEN(fopen64)

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    return fault(under(from) || under(to), TAKES) ? -1 : real(from, to);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    return fault(under_at(from_dir, from) || under_at(to_dir, to), TAKES) ? -1 : real(from_dir, from, to_dir, to);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned);
    if (fault(under_at(from_dir, from) || under_at(to_dir, to), TAKES)) return -1;
    return real(from_dir, from, to_dir, to, flags);
}

#define REMOVE(name) \
    int name(const char *path) { \
        REAL(int, #name, const char *); \
        return fault(under(path), FREES) ? -1 : real(path); \
    }
REMOVE(unlink)
REMOVE(rmdir)

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    return fault(under(path), TAKES) ? -1 : real(path, mode);
}

int mkdirat(int dir, const char *path, mode_t mode) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    return fault(under_at(dir, path), TAKES) ? -1 : real(dir, path, mode);
}

int unlinkat(int dir, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    return fault(under_at(dir, path), FREES) ? -1 : real(dir, path, flags);
}

#define SYNC(name) \
    int name(int fd) { \
        REAL(int, #name, int); \
        return fault(under_fd(fd), TAKES) ? -1 : real(fd); \
    }
SYNC(fsync)
SYNC(fdatasync)

#define FALLOCATE(name, size) \
    int name(int fd, size offset, size length) { \
        REAL(int, #name, int, size, size); \
        return fault(under_fd(fd), TAKES) ? ENOSPC : real(fd, offset, length); \
    }
FALLOCATE(posix_fallocate, off_t)
FALLOCATE(posix_fallocate64, off64_t)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    return with_writes && fault(under_fd(fd), WRITES) ? -1 : real(fd, data, size);
}

#define PWRITE(name, size) \
    ssize_t name(int fd, const void *data, size_t length, size offset) { \
        REAL(ssize_t, #name, int, const void *, size_t, size); \
        return with_writes && fault(under_fd(fd), WRITES) ? -1 : real(fd, data, length, offset); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t sendfile64(int to, int from, off64_t *offset, size_t length) { /* by which Python copies files */
    REAL(ssize_t, "sendfile64", int, int, off64_t *, size_t);
    return with_writes && fault(under_fd(to), WRITES) ? -1 : real(to, from, offset, length);
}
