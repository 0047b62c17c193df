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
 * Environment: QUORATE_DISK_ROOT, QUORATE_DISK_SHADOW (both absolute), QUORATE_DISK_IGNORE_SYNC.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))real(#name))

/* A range of a file that was written and not yet synced. */
struct range {
    ino_t inode;
    off_t begin, end;
    struct range *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct range *dirty;

static void *real(const char *name) {
    void *symbol = dlsym(RTLD_NEXT, name);
    if (!symbol) {
        fprintf(stderr, "disk layer: no %s\n", name);
        abort();
    }
    return symbol;
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
    if (begin >= end)
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

ssize_t write(int fd, const void *bytes, size_t size) { return wrote(fd, -1, REAL(write)(fd, bytes, size)); }
ssize_t writev(int fd, const struct iovec *v, int n) { return wrote(fd, -1, REAL(writev)(fd, v, n)); }
ssize_t pwrite(int fd, const void *b, size_t s, off_t at) { return wrote(fd, at, REAL(pwrite)(fd, b, s, at)); }
ssize_t pwrite64(int fd, const void *b, size_t s, off_t at) { return wrote(fd, at, REAL(pwrite64)(fd, b, s, at)); }
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at) { return wrote(fd, at, REAL(pwritev)(fd, v, n, at)); }
ssize_t pwritev64(int fd, const struct iovec *v, int n, off_t at) {
    return wrote(fd, at, REAL(pwritev64)(fd, v, n, at));
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

static void keep_file(int fd, const struct stat *status) {
    static __thread char buffer[1 << 16];
    char path[64];
    struct stat now;
    struct range *ranges = take(status->st_ino);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int from = open(path, O_RDONLY | O_CLOEXEC), to = open_shadow("files", status->st_ino, O_WRONLY | O_CREAT);
    if (from < 0 || to < 0 || fstat(from, &now))
        abort();
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

static int synced(int fd, int (*call)(int)) {
    struct stat status;
    if (!tracked(fd, &status))
        return call(fd);
    if (getenv("QUORATE_DISK_IGNORE_SYNC"))
        return 0;
    int result = call(fd), saved = errno;
    if (!result) {
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
