/* Tries system calls that no command in a slot should be able to make; prints ESCAPED and the name of each that works.
   A call that is refused for its arguments (EFAULT, EINVAL, EBADF) was not refused: it is told as REACHED. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void tell(const char *name, long result) {
    if (result >= 0)
        printf("ESCAPED %s\n", name);
    else if (errno != EPERM && errno != ENOSYS && errno != EACCES)
        printf("REACHED %s: %s\n", name, strerror(errno));
}

#define TRY(call, ...) tell(#call, syscall(SYS_##call, ##__VA_ARGS__))

static int child(void *unused) {
    (void)unused;
    return 0;
}

static void system_calls(void) {
    TRY(unshare, CLONE_NEWUSER);
    TRY(unshare, CLONE_NEWNS);
    TRY(mount, "none", "/tmp", "tmpfs", 0, "");
    TRY(umount2, "/tmp", MNT_DETACH);
    TRY(pivot_root, "/tmp", "/tmp");
    TRY(chroot, "/tmp");
    TRY(setns, 0, 0);
    TRY(keyctl, 0, -3, 1, 0, 0);
    TRY(add_key, "user", "x", "x", 1, -3);
    TRY(request_key, "user", "x", "", -3);
    TRY(bpf, 0, NULL, 0);
    TRY(perf_event_open, NULL, 0, -1, -1, 0);
    TRY(userfaultfd, 0);
    TRY(kexec_load, 0, 0, NULL, 0);
    TRY(init_module, NULL, 0, "");
    TRY(delete_module, "nothing", 0);
    TRY(swapoff, "/nothing");
    TRY(reboot, 0, 0, 0, NULL);
    TRY(settimeofday, NULL, NULL);
    TRY(sethostname, "x", 1);
    TRY(open_by_handle_at, -1, NULL, 0);
    TRY(io_uring_setup, 1, NULL);
    TRY(fsopen, "tmpfs", 0);
    TRY(open_tree, -100, "/", 1);
    TRY(clone3, NULL, 0);
    if (setuid(0) == 0 || seteuid(0) == 0)
        printf("ESCAPED setuid\n");
    tell("clone into a user namespace", clone(child, (char *)malloc(65536) + 65536, CLONE_NEWUSER | SIGCHLD, NULL));
    tell("a raw socket", socket(AF_INET, SOCK_RAW, 1));
    tell("a packet socket", socket(AF_PACKET, SOCK_RAW, 0));
    tell("a block device", mknod("/workspace/disk", S_IFBLK | 0600, makedev(254, 0)));
    char letter = 'x';
    tell("TIOCSTI", ioctl(0, TIOCSTI, &letter));
    tell("TIOCLINUX", ioctl(0, 0x541C, &letter));
}

int main(int count, char **arguments) {
    if (count == 1)
        system_calls();
    for (int each = 1; each < count; each++) {
        long pid = atol(arguments[each]);
        long result = ptrace(PTRACE_ATTACH, pid, NULL, NULL);
        if (result == 0)
            printf("ESCAPED traced %ld\n", pid);
        if (kill(pid, 0) == 0)
            printf("ESCAPED may signal %ld\n", pid);
    }
    printf("tried\n");
    return 0;
}
