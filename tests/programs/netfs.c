/* Says that every file system is NFS. */
#define _GNU_SOURCE
#include <sys/vfs.h>
#include <sys/syscall.h>
#include <unistd.h>

int fstatfs(int fd, struct statfs *stat) {
    int result = syscall(SYS_fstatfs, fd, stat);
    stat->f_type = 0x6969;
    return result;
}
int fstatfs64(int fd, struct statfs64 *stat) { return fstatfs(fd, (struct statfs *)stat); }
