/* What a process does to the files under one folder: recorded, or made to fail.
 *
 *     LD_PRELOAD -> [shim.c] -> libc;  trace -> trace.py;  faults <- disk.py
 *
 * Calls of the C library that change files are intercepted. Under SHIM_ROOT each becomes a record
 * in the file SHIM_TRACE, in the order in which it was done (one lock around call and record); a
 * write to the file SHIM_MARK becomes a mark. While the file SHIM_FAULTS exists, the calls that it
 * describes fail instead. Without these variables nothing changes.
 *
 * A record: struct head, then the path, then the data. Files and folders are known by number; a
 * number is given at the first sight of an inode and again when a name is made anew.
 *
 * Absent: what is written through a mapping is seen only at fsync, when the whole file is recorded
 * if it was ever mapped for shared writing. The WAL's shared memory (-shm) is never needed after a
 * crash and is left out, as are files without a name (O_TMPFILE).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind {
    CREATE = 1, WRITE, TRUNCATE, FSYNC, RENAME, UNLINK, MKDIR, RMDIR, MARK, CONTENT
};

struct head {
    uint32_t magic, kind;
    uint64_t file, offset, data, path;
};

#define MAGIC 0x53484d31u
#define FILES 4096
#define HANDLES 4096

struct file {
    ino_t inode;
    uint64_t number;
    int mapped;
};

struct handle {
    char *path; /* NULL: not ours */
    uint64_t file;
    int is_folder;
};

static struct file files[FILES];
static int n_files;
static uint64_t next_number = 1;
static struct handle handles[HANDLES];
static char root[PATH_MAX], mark[PATH_MAX], faults[PATH_MAX];
static int trace = -1, ready;
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;



static void begin(void) {
    pthread_mutex_lock(&lock);
    if (ready) return;
    ready = 1;
    const char *text;
    if ((text = getenv("SHIM_ROOT"))) snprintf(root, sizeof root, "%s", text);
    if ((text = getenv("SHIM_MARK"))) snprintf(mark, sizeof mark, "%s", text);
    if ((text = getenv("SHIM_FAULTS"))) snprintf(faults, sizeof faults, "%s", text);
    if (root[0] && (text = getenv("SHIM_TRACE")))
        trace = (int)syscall(SYS_openat, AT_FDCWD, text,
                             O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static void end(void) { pthread_mutex_unlock(&lock); }

/* ---- paths ---- */

static int is_ours(const char *path) {
    size_t n = strlen(root), m = strlen(path);
    if (!n || strncmp(path, root, n) || (path[n] && path[n] != '/')) return 0;
    return !(m > 4 && !strcmp(path + m - 4, "-shm"));
}

/* The absolute path of a call's arguments, without looking at links; 0 where it is not ours. */
static int resolve(int folder, const char *path, char *out) {
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
    } else if (folder == AT_FDCWD) {
        char here[PATH_MAX];
        if (!getcwd(here, sizeof here)) return 0;
        snprintf(out, PATH_MAX, "%.2000s/%.2000s", here, path);
    } else {
        if (folder < 0 || folder >= HANDLES || !handles[folder].path) return 0;
        snprintf(out, PATH_MAX, "%.2000s/%.2000s", handles[folder].path, path);
    }
    return is_ours(out);
}

/* ---- the trace ---- */

static void put(const void *data, size_t n) {
    const char *at = data;
    while (n) {
        ssize_t done = syscall(SYS_write, trace, at, n);
        if (done <= 0) abort();
        at += done;
        n -= (size_t)done;
    }
}

static void record(enum kind kind, uint64_t file, uint64_t offset, const char *path,
                   const void *data, size_t n) {
    if (trace < 0) return;
    int saved = errno;
    const char *inside = path ? path + (is_ours(path) ? strlen(root) : 0) : "";
    struct head head = {MAGIC, kind, file, offset, n, strlen(inside)};
    put(&head, sizeof head);
    put(inside, strlen(inside));
    put(data, n);
    errno = saved;
}

static struct file *file_of(ino_t inode, int is_new) {
    struct file *found = NULL;
    for (int i = 0; i < n_files && !found; i++)
        if (files[i].inode == inode) found = &files[i];
    if (!found) {
        if (n_files == FILES) abort();
        found = &files[n_files++];
        found->inode = inode;
        is_new = 1;
    }
    if (is_new) {
        found->number = next_number++;
        found->mapped = 0;
    }
    return found;
}

/* ---- faults ---- */

static char known_spec[512];
static long seen;

/* The errno that a call is to fail with, 0 for none, -1 for a short write.
 * A line of the file: CALLS ERRNO PART SKIP TIMES. PART is looked for in the path; "*" fits every
 * one, and "PART$" those that end so. */
static int fits(const char *path, const char *part) {
    size_t n = strlen(path), m = strlen(part);
    if (!strcmp(part, "*")) return 1;
    if (m && part[m - 1] == '$') return n >= m - 1 && !strncmp(path + n - (m - 1), part, m - 1);
    return strstr(path, part) != NULL;
}

static int fault(const char *call, const char *path) {
    if (!faults[0] || !path) return 0;
    int handle = (int)syscall(SYS_openat, AT_FDCWD, faults, O_RDONLY | O_CLOEXEC);
    if (handle < 0) return 0;
    char spec[512] = "";
    ssize_t n = syscall(SYS_read, handle, spec, sizeof spec - 1);
    syscall(SYS_close, handle);
    if (n <= 0) return 0;
    spec[n] = 0;
    if (strcmp(spec, known_spec)) {
        strcpy(known_spec, spec);
        seen = 0;
    }
    char calls[128], part[128];
    int number;
    long skip, times;
    if (sscanf(spec, "%127s %d %127s %ld %ld", calls, &number, part, &skip, &times) != 5) return 0;
    char wanted[64], all[160];
    snprintf(wanted, sizeof wanted, ",%s,", call);
    snprintf(all, sizeof all, ",%s,", calls);
    if (!strstr(all, wanted) || !fits(path, part)) return 0;
    seen++;
    return seen > skip && seen <= skip + times ? number : 0;
}

#define FAIL_IF(call, path) \
    do { \
        int number = fault(call, path); \
        if (number > 0) { end(); errno = number; return -1; } \
    } while (0)

static const char *path_of(int fd) {
    return fd >= 0 && fd < HANDLES ? handles[fd].path : NULL;
}

/* ---- handles ---- */

static void forget(int fd) {
    if (fd < 0 || fd >= HANDLES || !handles[fd].path) return;
    free(handles[fd].path);
    handles[fd].path = NULL;
}

static void remember(int fd, const char *path, int was_there) {
    struct stat about;
    forget(fd);
    if (fd < 0 || fd >= HANDLES || fstat(fd, &about)) return;
    int is_folder = S_ISDIR(about.st_mode);
    struct file *file = file_of(about.st_ino, !was_there);
    handles[fd] = (struct handle){strdup(path), file->number, is_folder};
    if (!was_there) record(CREATE, file->number, 0, path, NULL, 0);
}

static void copy_handle(int from, int to) {
    if (to < 0 || to >= HANDLES) return;
    forget(to);
    if (from >= 0 && from < HANDLES && handles[from].path)
        handles[to] = (struct handle){
            strdup(handles[from].path), handles[from].file, handles[from].is_folder};
}

static int open_any(int folder, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    begin();
    int is_mark = mark[0] && !strcmp(path, mark);
    int ours = resolve(folder, path, full) && (flags & O_TMPFILE) != O_TMPFILE;
    if (ours) FAIL_IF("open", full);
    struct stat about;
    int was_there = ours && !stat(full, &about);
    int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
    int saved = errno;
    if (fd >= 0) {
        forget(fd);
        if (is_mark && fd < HANDLES) handles[fd] = (struct handle){strdup(path), 0, 0};
        if (ours) {
            remember(fd, full, was_there);
            if (was_there && (flags & O_TRUNC)) record(TRUNCATE, handles[fd].file, 0, full, NULL, 0);
        }
    }
    end();
    errno = saved;
    return fd;
}

#define MODE_OF(flags, mode) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

int open(const char *path, int flags, ...) { MODE_OF(flags, mode) return open_any(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags, mode) return open_any(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE_OF(flags, mode) return open_any(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE_OF(flags, mode) return open_any(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
    begin();
    forget(fd);
    int answer = (int)syscall(SYS_close, fd);
    end();
    return answer;
}

int dup(int fd) {
    begin();
    int answer = (int)syscall(SYS_dup, fd);
    copy_handle(fd, answer);
    end();
    return answer;
}

int dup2(int fd, int to) {
    begin();
    int answer = fd == to ? to : (int)syscall(SYS_dup3, fd, to, 0);
    if (answer >= 0 && fd != to) copy_handle(fd, answer);
    end();
    return answer;
}

int dup3(int fd, int to, int flags) {
    begin();
    int answer = (int)syscall(SYS_dup3, fd, to, flags);
    copy_handle(fd, answer);
    end();
    return answer;
}

static int fcntl_any(int fd, int command, void *argument) {
    int answer = (int)syscall(SYS_fcntl, fd, command, argument);
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) {
        begin();
        copy_handle(fd, answer);
        end();
    }
    return answer;
}

#define FCNTL(name) \
    int name(int fd, int command, ...) { \
        va_list more; \
        va_start(more, command); \
        void *argument = va_arg(more, void *); \
        va_end(more); \
        return fcntl_any(fd, command, argument); \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

/* ---- contents ---- */

static ssize_t write_any(int fd, const void *data, size_t n, off_t offset) {
    begin();
    const char *path = path_of(fd);
    if (!path) {
        end();
        return offset < 0 ? syscall(SYS_write, fd, data, n)
                          : syscall(SYS_pwrite64, fd, data, n, offset);
    }
    if (mark[0] && !strcmp(path, mark)) {
        record(MARK, 0, 0, NULL, data, n);
        end();
        return (ssize_t)n;
    }
    int number = fault("write", path);
    if (number > 0) {
        end();
        errno = number;
        return -1;
    }
    if (number < 0 && n > 1) n /= 2;
    off_t at = offset;
    if (at < 0) {
        int flags = (int)syscall(SYS_fcntl, fd, F_GETFL, 0);
        at = lseek(fd, 0, flags & O_APPEND ? SEEK_END : SEEK_CUR);
    }
    ssize_t done = offset < 0 ? syscall(SYS_write, fd, data, n)
                              : syscall(SYS_pwrite64, fd, data, n, offset);
    if (done > 0) record(WRITE, handles[fd].file, (uint64_t)at, path, data, (size_t)done);
    end();
    return done;
}

ssize_t write(int fd, const void *data, size_t n) { return write_any(fd, data, n, -1); }
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return write_any(fd, data, n, at); }
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) { return write_any(fd, data, n, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!path_of(fd)) return syscall(SYS_writev, fd, parts, count);
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = write_any(fd, parts[i].iov_base, parts[i].iov_len, -1);
        if (done < 0) return total ? total : -1;
        total += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return total;
}

static int truncate_any(int fd, off_t size) {
    begin();
    FAIL_IF("truncate", path_of(fd));
    int answer = (int)syscall(SYS_ftruncate, fd, size);
    if (!answer && path_of(fd)) record(TRUNCATE, handles[fd].file, (uint64_t)size, path_of(fd), NULL, 0);
    end();
    return answer;
}

int ftruncate(int fd, off_t size) { return truncate_any(fd, size); }
int ftruncate64(int fd, off64_t size) { return truncate_any(fd, size); }

/* Reserved blocks read as zeros; what a power cut leaves of the size is as with a truncation. */
static int allocate_any(int fd, off_t first, off_t n) {
    begin();
    int number = fault("fallocate", path_of(fd) ? path_of(fd) : root[0] ? "scratch" : NULL);
    if (number > 0) {
        end();
        return number;
    }
    int answer = syscall(SYS_fallocate, fd, 0, first, n) ? errno : 0;
    struct stat about;
    if (!answer && path_of(fd) && !fstat(fd, &about))
        record(TRUNCATE, handles[fd].file, (uint64_t)about.st_size, path_of(fd), NULL, 0);
    end();
    return answer;
}

int posix_fallocate(int fd, off_t first, off_t n) { return allocate_any(fd, first, n); }
int posix_fallocate64(int fd, off64_t first, off64_t n) { return allocate_any(fd, first, n); }

static void *map_any(void *at, size_t n, int protection, int flags, int fd, off_t offset) {
    if (path_of(fd) && (flags & MAP_SHARED) && (protection & PROT_WRITE)) {
        begin();
        for (int i = 0; i < n_files; i++)
            if (files[i].number == handles[fd].file) files[i].mapped = 1;
        end();
    }
    return (void *)syscall(SYS_mmap, at, n, protection, flags, fd, offset);
}

void *mmap(void *at, size_t n, int p, int f, int fd, off_t o) { return map_any(at, n, p, f, fd, o); }
void *mmap64(void *at, size_t n, int p, int f, int fd, off64_t o) { return map_any(at, n, p, f, fd, o); }

/* The contents of a file that is written through a mapping, as a flush makes them durable. */
static void record_content(int fd) {
    struct stat about;
    if (trace < 0 || fstat(fd, &about) || !about.st_size) return;
    void *view = (void *)syscall(SYS_mmap, NULL, about.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (view == MAP_FAILED) abort();
    record(CONTENT, handles[fd].file, 0, path_of(fd), view, (size_t)about.st_size);
    syscall(SYS_munmap, view, about.st_size);
}

static int sync_any(int fd, long call) {
    begin();
    FAIL_IF("fsync", path_of(fd));
    int answer = (int)syscall(call, fd);
    if (!answer && path_of(fd)) {
        for (int i = 0; i < n_files; i++)
            if (files[i].number == handles[fd].file && files[i].mapped) record_content(fd);
        record(FSYNC, handles[fd].file, (uint64_t)handles[fd].is_folder, path_of(fd), NULL, 0);
    }
    end();
    return answer;
}

int fsync(int fd) { return sync_any(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_any(fd, SYS_fdatasync); }

/* ---- names ---- */

static int rename_any(int from_at, const char *from, int to_at, const char *to) {
    char old[PATH_MAX], new[PATH_MAX];
    begin();
    int ours = resolve(from_at, from, old) && resolve(to_at, to, new);
    if (ours) FAIL_IF("rename", new);
    int answer = (int)syscall(SYS_renameat, from_at, from, to_at, to);
    if (!answer && ours) {
        record(RENAME, 0, 0, old, new + strlen(root), strlen(new + strlen(root)));
        size_t n = strlen(old);
        for (int i = 0; i < HANDLES; i++) { /* handles inside a renamed folder move with it */
            char *path = handles[i].path, moved[PATH_MAX];
            if (!path || strncmp(path, old, n) || (path[n] && path[n] != '/')) continue;
            snprintf(moved, sizeof moved, "%.2000s%.2000s", new, path + n);
            free(path);
            handles[i].path = strdup(moved);
        }
    }
    end();
    return answer;
}

int rename(const char *from, const char *to) { return rename_any(AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int a, const char *from, int b, const char *to) { return rename_any(a, from, b, to); }

static int unlink_any(int folder, const char *path, int flags) {
    char full[PATH_MAX];
    begin();
    int ours = resolve(folder, path, full);
    if (ours) FAIL_IF("unlink", full);
    int answer = (int)syscall(SYS_unlinkat, folder, path, flags);
    if (!answer && ours) record(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, 0, full, NULL, 0);
    end();
    return answer;
}

int unlink(const char *path) { return unlink_any(AT_FDCWD, path, 0); }
int unlinkat(int folder, const char *path, int flags) { return unlink_any(folder, path, flags); }
int rmdir(const char *path) { return unlink_any(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    struct stat about;
    int is_folder = !lstat(path, &about) && S_ISDIR(about.st_mode);
    return unlink_any(AT_FDCWD, path, is_folder ? AT_REMOVEDIR : 0);
}

static int mkdir_any(int folder, const char *path, mode_t mode) {
    char full[PATH_MAX];
    begin();
    int ours = resolve(folder, path, full);
    if (ours) FAIL_IF("mkdir", full);
    int answer = (int)syscall(SYS_mkdirat, folder, path, mode);
    struct stat about;
    if (!answer && ours && !stat(full, &about))
        record(MKDIR, file_of(about.st_ino, 1)->number, 0, full, NULL, 0);
    end();
    return answer;
}

int mkdir(const char *path, mode_t mode) { return mkdir_any(AT_FDCWD, path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { return mkdir_any(folder, path, mode); }
