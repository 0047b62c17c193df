/* A disk that loses what was never synced: a layer for LD_PRELOAD under a process of a test, never part of the product.
 *
 * It lets every call through and keeps, beside the real files under ROOT, what a power cut would leave of them:
 *
 *   SHADOW/files/<inode>   the content of a file as of its last completed fsync or fdatasync
 *   SHADOW/dirs/<inode>    the entries of a folder as of its last completed fsync: "<inode> <f|d> <name>" a line
 *   SHADOW/pins/<inode>    a hard link to each file that lost its name, so that no inode number is used twice
 *
 * After the processes were killed, the test puts ROOT back from there. Bytes count as synced only once they were copied, and they
 * are copied before the call that synced them returns: so nothing can be acknowledged that is not in SHADOW.
 *
 * With IGNORE_SYNC set, syncs succeed and keep nothing: the same test must then find losses.
 *
 * With CONTROL set, a file of eight 64-bit numbers that whoever torments the process writes says what goes wrong at the moment:
 * how long syncs take, whether they fail, whether the disk is full (what is there can be overwritten, no file grows), and what
 * the wall clock shows. The monotonic clock stays as it is.
 *
 * Environment: QUORATE_DISK_ROOT (absolute), QUORATE_DISK_SHADOW (absolute; without it nothing is kept),
 * QUORATE_DISK_IGNORE_SYNC, QUORATE_DISK_CONTROL.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))real(#name))

/* A range of a file that was written and not yet synced. */
struct range {
    ino_t inode;
    off_t begin, end;
    struct range *next;
};

/* A file that this process has synced before: what an earlier process wrote and did not sync is in the shadow. */
struct known {
    ino_t inode;
    struct known *next;
};

/* What goes wrong at the moment; each field is written whole by another process. */
struct control {
    int64_t sync_delay_us; /* how long a sync takes, at least */
    int64_t sync_fails;    /* whether syncs fail with EIO */
    int64_t is_full;       /* whether no file can grow */
    int64_t wall_shift_ns; /* how far the wall clock is off */
    int64_t wall_rate_ppm; /* how much faster than it should it runs */
    int64_t wall_since_ns; /* since when by the monotonic clock */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct range *dirty;
static struct known *known;
static const volatile struct control *control;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

static void *real(const char *name) {
    void *symbol = dlsym(RTLD_NEXT, name);
    if (!symbol) {
        fprintf(stderr, "disk layer: no %s\n", name);
        abort();
    }
    return symbol;
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("QUORATE_DISK_CONTROL");
    real_clock_gettime = REAL(clock_gettime);
    if (!path)
        return;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        fprintf(stderr, "disk layer: cannot read %s\n", path);
        abort();
    }
    close(fd);
    control = map;
}

static const char *shadow(void) { return getenv("QUORATE_DISK_SHADOW"); }

static int under_root(const char *path) {
    const char *root = getenv("QUORATE_DISK_ROOT");
    return root && !strncmp(path, root, strlen(root)) && (path[strlen(root)] == '/' || !path[strlen(root)]);
}

/* Whether fd is a file or folder under ROOT; fills in what it is. */
static int tracked(int fd, struct stat *status) {
    char link[64], path[4096];
    if (fstat(fd, status) || !(S_ISREG(status->st_mode) || S_ISDIR(status->st_mode)))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0)
        return 0;
    path[size] = 0;
    return under_root(path);
}

static void mark(ino_t inode, off_t begin, off_t end) {
    if (begin >= end || !shadow())
        return;
    pthread_mutex_lock(&lock);
    if (dirty && dirty->inode == inode && dirty->end == begin) {
        dirty->end = end;
    } else {
        struct range *range = malloc(sizeof *range);
        if (!range)
            abort();
        *range = (struct range){inode, begin, end, dirty};
        dirty = range;
    }
    pthread_mutex_unlock(&lock);
}

static ssize_t wrote(int fd, off_t at, ssize_t size) {
    struct stat status;
    int saved = errno;
    if (size > 0 && tracked(fd, &status)) {
        if (at < 0) /* written at the position, which now stands after the bytes */
            at = lseek(fd, 0, SEEK_CUR) - size;
        mark(status.st_ino, at, at + size);
    }
    errno = saved;
    return size;
}

/* Whether a write of this size at this place, or at the position, would make a file grow on a full disk. */
static int no_room(int fd, off_t at, size_t size) {
    struct stat status;
    if (!control || !control->is_full || !tracked(fd, &status))
        return 0;
    if (at < 0)
        at = fcntl(fd, F_GETFL) & O_APPEND ? status.st_size : lseek(fd, 0, SEEK_CUR);
    if (at + (off_t)size <= status.st_size)
        return 0;
    errno = ENOSPC;
    return 1;
}

static size_t total(const struct iovec *v, int n) {
    size_t size = 0;
    for (int i = 0; i < n; i++)
        size += v[i].iov_len;
    return size;
}

ssize_t write(int fd, const void *b, size_t s) {
    return no_room(fd, -1, s) ? -1 : wrote(fd, -1, REAL(write)(fd, b, s));
}
ssize_t writev(int fd, const struct iovec *v, int n) {
    return no_room(fd, -1, total(v, n)) ? -1 : wrote(fd, -1, REAL(writev)(fd, v, n));
}
ssize_t pwrite(int fd, const void *b, size_t s, off_t at) {
    return no_room(fd, at, s) ? -1 : wrote(fd, at, REAL(pwrite)(fd, b, s, at));
}
ssize_t pwrite64(int fd, const void *b, size_t s, off_t at) {
    return no_room(fd, at, s) ? -1 : wrote(fd, at, REAL(pwrite64)(fd, b, s, at));
}
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at) {
    return no_room(fd, at, total(v, n)) ? -1 : wrote(fd, at, REAL(pwritev)(fd, v, n, at));
}
ssize_t pwritev64(int fd, const struct iovec *v, int n, off_t at) {
    return no_room(fd, at, total(v, n)) ? -1 : wrote(fd, at, REAL(pwritev64)(fd, v, n, at));
}

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    ssize_t done = REAL(copy_file_range)(in, from, out, to, size, flags);
    return wrote(out, to && done > 0 ? *to - done : -1, done);
}

static int truncated(int fd, off_t size, int (*call)(int, off_t)) {
    struct stat status;
    int known = tracked(fd, &status), result = call(fd, size), saved = errno;
    if (known && !result)
        mark(status.st_ino, size < status.st_size ? size : status.st_size,
             size < status.st_size ? status.st_size : size);
    errno = saved;
    return result;
}

int ftruncate(int fd, off_t size) { return truncated(fd, size, REAL(ftruncate)); }
int ftruncate64(int fd, off_t size) { return truncated(fd, size, (int (*)(int, off_t))real("ftruncate64")); }

static int open_shadow(const char *kind, ino_t inode, int flags) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s/%lu", shadow(), kind, (unsigned long)inode);
    return open(path, flags | O_CLOEXEC, 0644);
}

/* Takes the ranges of a file off the list. */
static struct range *take(ino_t inode) {
    struct range *taken = NULL;
    pthread_mutex_lock(&lock);
    for (struct range **at = &dirty; *at;) {
        struct range *range = *at;
        if (range->inode == inode) {
            *at = range->next;
            range->next = taken;
            taken = range;
        } else {
            at = &range->next;
        }
    }
    pthread_mutex_unlock(&lock);
    return taken;
}

/* Whether this process syncs the file for the first time. What an earlier process left unsynced is then synced as well. */
static int is_first(ino_t inode) {
    pthread_mutex_lock(&lock);
    struct known *at = known;
    while (at && at->inode != inode)
        at = at->next;
    if (!at) {
        struct known *first = malloc(sizeof *first);
        if (!first)
            abort();
        *first = (struct known){inode, known};
        known = first;
    }
    pthread_mutex_unlock(&lock);
    return !at;
}

static void keep_file(int fd, const struct stat *status) {
    static __thread char buffer[1 << 16];
    char path[64];
    struct stat now;
    struct range *ranges = take(status->st_ino);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int from = open(path, O_RDONLY | O_CLOEXEC), to = open_shadow("files", status->st_ino, O_WRONLY | O_CREAT);
    if (from < 0 || to < 0 || fstat(from, &now))
        abort();
    if (is_first(status->st_ino)) {
        struct range *whole = malloc(sizeof *whole);
        if (!whole)
            abort();
        *whole = (struct range){status->st_ino, 0, now.st_size, ranges};
        ranges = whole;
    }
    while (ranges) {
        struct range *range = ranges;
        for (off_t at = range->begin; at < range->end;) {
            size_t wanted = range->end - at < (off_t)sizeof buffer ? (size_t)(range->end - at) : sizeof buffer;
            ssize_t size = pread(from, buffer, wanted, at);
            if (size <= 0)
                break; /* the file has become shorter */
            if (REAL(pwrite)(to, buffer, size, at) != size)
                abort();
            at += size;
        }
        ranges = range->next;
        free(range);
    }
    if (REAL(ftruncate)(to, now.st_size))
        abort();
    close(from);
    close(to);
}

static void keep_folder(int fd, const struct stat *status) {
    char path[64], line[512], old[4096], new[4096];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    snprintf(new, sizeof new, "%s/dirs/%lu.%d", shadow(), (unsigned long)status->st_ino, gettid());
    snprintf(old, sizeof old, "%s/dirs/%lu", shadow(), (unsigned long)status->st_ino);
    DIR *folder = opendir(path);
    int to = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (!folder || to < 0)
        abort();
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        int size = snprintf(line, sizeof line, "%lu %c %s\n", (unsigned long)entry->d_ino,
                            entry->d_type == DT_DIR ? 'd' : 'f', entry->d_name);
        if (REAL(write)(to, line, size) != size)
            abort();
    }
    closedir(folder);
    close(to);
    if (REAL(rename)(new, old))
        abort();
}

/* A sync takes its time; whether it fails is decided at its end. */
static int sync_goes_wrong(void) {
    const struct timespec slice = {0, 1000 * 1000};
    if (!control)
        return 0;
    for (int64_t waited_us = 0; waited_us < control->sync_delay_us; waited_us += 1000)
        nanosleep(&slice, NULL);
    return control->sync_fails != 0;
}

static int synced(int fd, int (*call)(int)) {
    struct stat status;
    if (!tracked(fd, &status))
        return call(fd);
    if (sync_goes_wrong()) {
        errno = EIO;
        return -1;
    }
    if (getenv("QUORATE_DISK_IGNORE_SYNC"))
        return 0;
    int result = call(fd), saved = errno;
    if (!result && shadow()) {
        if (S_ISDIR(status.st_mode))
            keep_folder(fd, &status);
        else
            keep_file(fd, &status);
    }
    errno = saved;
    return result;
}

int fsync(int fd) { return synced(fd, REAL(fsync)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

/* Before a file loses its name: its inode number must not be given to another. */
static void pin(int folder, const char *name) {
    struct stat status;
    char path[4096];
    int saved = errno;
    if (shadow() && !fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) && S_ISREG(status.st_mode)) {
        snprintf(path, sizeof path, "%s/pins/%lu", shadow(), (unsigned long)status.st_ino);
        linkat(folder, name, AT_FDCWD, path, 0); /* fails for files that are not under ROOT's device, or pinned before */
    }
    errno = saved;
}

int unlink(const char *name) { return pin(AT_FDCWD, name), REAL(unlink)(name); }
int unlinkat(int folder, const char *name, int flags) {
    return pin(folder, name), REAL(unlinkat)(folder, name, flags);
}
int rename(const char *from, const char *to) { return pin(AT_FDCWD, to), REAL(rename)(from, to); }
int renameat(int a, const char *from, int b, const char *to) { return pin(b, to), REAL(renameat)(a, from, b, to); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    return pin(b, to), REAL(renameat2)(a, from, b, to, flags);
}

/* The wall clock, as wrong as it is to be. */
static void spoil(struct timespec *time) {
    struct timespec now;
    if (!control || real_clock_gettime(CLOCK_MONOTONIC, &now))
        return;
    int64_t since = now.tv_sec * 1000000000LL + now.tv_nsec - control->wall_since_ns;
    int64_t drift = control->wall_rate_ppm ? since / 1000000 * control->wall_rate_ppm : 0;
    int64_t shown = time->tv_sec * 1000000000LL + time->tv_nsec + control->wall_shift_ns + drift;
    if (shown < 0)
        shown = 0;
    time->tv_sec = shown / 1000000000LL;
    time->tv_nsec = shown % 1000000000LL;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!real_clock_gettime)
        real_clock_gettime = REAL(clock_gettime);
    int result = real_clock_gettime(clock, time);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        spoil(time);
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return -1;
    *time = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *to) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return -1;
    if (to)
        *to = now.tv_sec;
    return now.tv_sec;
}
