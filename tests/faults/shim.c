/* A disk that fails when it is told to, for one process: loaded before the C library (LD_PRELOAD).
 *
 * `perdure_fail("fdatasync", "-wal", 3, EIO)` makes the third fdatasync from now on, of a file whose name ends so, fail
 * with that error. It fails once: what comes after it works again, as after a real fsync that failed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static char failing_call[32];
static char failing_suffix[64];
static int failing_error;
static int countdown;

int perdure_fail(const char *call, const char *suffix, int number, int error)
{
    snprintf(failing_call, sizeof failing_call, "%s", call);
    snprintf(failing_suffix, sizeof failing_suffix, "%s", suffix);
    failing_error = error;
    __atomic_store_n(&countdown, number, __ATOMIC_SEQ_CST);
    return 0;
}

/* How many calls are left until the one that fails; 0 once it has failed. */
int perdure_left(void)
{
    return __atomic_load_n(&countdown, __ATOMIC_SEQ_CST);
}

static int is_on_target(int descriptor)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    size_t suffix = strlen(failing_suffix);
    if (length < 0 || (size_t)length < suffix)
        return 0;
    path[length] = 0;
    return strcmp(path + length - suffix, failing_suffix) == 0;
}

static int fails(const char *call, int descriptor)
{
    if (__atomic_load_n(&countdown, __ATOMIC_SEQ_CST) == 0 || strcmp(call, failing_call) || !is_on_target(descriptor))
        return 0;
    if (__atomic_sub_fetch(&countdown, 1, __ATOMIC_SEQ_CST) != 0)
        return 0;
    errno = failing_error;
    return 1;
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset)
{
    static ssize_t (*original)(int, const void *, size_t, off64_t);
    if (original == NULL)
        original = dlsym(RTLD_NEXT, "pwrite64");
    return fails("pwrite", descriptor) ? -1 : original(descriptor, data, size, offset);
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset)
{
    static ssize_t (*original)(int, const void *, size_t, off_t);
    if (original == NULL)
        original = dlsym(RTLD_NEXT, "pwrite");
    return fails("pwrite", descriptor) ? -1 : original(descriptor, data, size, offset);
}

int fdatasync(int descriptor)
{
    static int (*original)(int);
    if (original == NULL)
        original = dlsym(RTLD_NEXT, "fdatasync");
    return fails("fdatasync", descriptor) ? -1 : original(descriptor);
}

int fsync(int descriptor)
{
    static int (*original)(int);
    if (original == NULL)
        original = dlsym(RTLD_NEXT, "fsync");
    return fails("fdatasync", descriptor) ? -1 : original(descriptor);
}
