/* Preloaded, makes a disk full or broken for some files: those whose path contains FULL_DISK_PATH, while the file
 * FULL_DISK_WHILE exists. FULL_DISK_KIND says how:
 *
 *   space   what would make a file longer fails with ENOSPC, after a short write if it is not tiny, as a disk that fills
 *           up does; bytes that a file has already are written
 *   blocks  what does not fit into the last block of a file fails with ENOSPC, as on most file systems
 *   sync    writes succeed, and fsync fails with ENOSPC, as where room is found only then
 *   broken  every write and fsync fails with EIO
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* What still fits on a full disk of nearly every write: so much less is written than was asked for. */
enum { SHORT = 8, BLOCK = 4096 };

static int is_kind(const char *kind) {
    const char *set = getenv("FULL_DISK_KIND");
    return set != NULL && strcmp(set, kind) == 0;
}

/* Whether the disk of this file is full or broken now. */
static int is_hit(int file) {
    const char *part = getenv("FULL_DISK_PATH"), *flag = getenv("FULL_DISK_WHILE");
    char link[64], path[PATH_MAX];
    struct stat ignored;
    ssize_t length;
    if (part == NULL || flag == NULL || stat(flag, &ignored) != 0) {
        return 0;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0) {
        return 0;
    }
    path[length] = '\0';
    return strstr(path, part) != NULL;
}

/* How many of `count` bytes at `offset` may be written; -1 for none, with the error. */
static ssize_t room(int file, off_t offset, size_t count) {
    struct stat status;
    if (count == 0 || is_kind("sync") || !is_hit(file)) {
        return (ssize_t)count;
    }
    if (is_kind("broken")) {
        errno = EIO;
        return -1;
    }
    if (fstat(file, &status) == 0 && offset >= 0) {
        off_t end = is_kind("blocks") ? (status.st_size + BLOCK - 1) / BLOCK * BLOCK : status.st_size;
        if (offset + (off_t)count <= end) {
            return (ssize_t)count;
        }
        if (is_kind("blocks") && offset < end) {
            return (ssize_t)(end - offset);
        }
    }
    if (is_kind("space") && count > SHORT) {
        return (ssize_t)count - SHORT;
    }
    errno = ENOSPC;
    return -1;
}

/* Where a write without an offset begins. */
static off_t position(int file) {
    int flags = fcntl(file, F_GETFL);
    struct stat status;
    if (flags >= 0 && (flags & O_APPEND) != 0 && fstat(file, &status) == 0) {
        return status.st_size;
    }
    return lseek(file, 0, SEEK_CUR);
}

ssize_t write(int file, const void *bytes, size_t count) {
    ssize_t fits = room(file, position(file), count);
    return fits < 0 ? fits : syscall(SYS_write, file, bytes, (size_t)fits);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) {
    ssize_t fits = room(file, offset, count);
    return fits < 0 ? fits : syscall(SYS_pwrite64, file, bytes, (size_t)fits, offset);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off_t offset) {
    return pwrite(file, bytes, count, offset);
}

/* The first piece alone: a short write, which callers must be ready for. */
ssize_t writev(int file, const struct iovec *pieces, int count) {
    return count == 0 || !is_hit(file) ? syscall(SYS_writev, file, pieces, count)
                                       : write(file, pieces[0].iov_base, pieces[0].iov_len);
}

static int sync_fails(int file) {
    if (!(is_kind("sync") || is_kind("broken")) || !is_hit(file)) {
        return 0;
    }
    errno = is_kind("broken") ? EIO : ENOSPC;
    return 1;
}

int fsync(int file) {
    return sync_fails(file) ? -1 : (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    return sync_fails(file) ? -1 : (int)syscall(SYS_fdatasync, file);
}
