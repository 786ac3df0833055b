/* Operations on mounts, with the mount API of Linux 5.2 to 5.12. Rules as in child.c. */
#include "child/operations.h"
#include "syscalls.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* From linux/mount.h, see syscalls.h. */
enum {
    MB_FSCONFIG_SET_FLAG = 0,
    MB_FSCONFIG_SET_STRING = 1,
    MB_FSCONFIG_CMD_CREATE = 6,
    MB_FSCONFIG_CMD_RECONFIGURE = 7
};

#define ATTACH_EMPTY (MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)

static bool is_directory(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
}

static bool is_the_kernels(int fd) { return mb_child_is_on(fd, PROC_SUPER_MAGIC) || mb_child_is_on(fd, SYSFS_MAGIC); }

/* Has a symlink of the image led a mount into procfs or sysfs, where it would cover the kernel's files? A path that
 * names such a place is accepted, but not a symlink that leads there. */
static bool is_led_astray(const struct mb_child *child, uint64_t root, const char *path, int target) {
    if (root == MB_HOST || root & MB_NO_LINKS || !is_the_kernels(target)) {
        return false;
    }
    /* If a link and a directory are swapped meanwhile, the path without links may be another one by now. */
    int straight = mb_child_open_in(child, root | MB_NO_LINKS, path, O_PATH);
    struct stat found, named;
    bool is_named = straight >= 0 && fstat(target, &found) == 0 && fstat(straight, &named) == 0 &&
                    found.st_dev == named.st_dev && found.st_ino == named.st_ino;
    if (straight >= 0) {
        close(straight);
    }
    return !is_named;
}

static int attach_at(const struct mb_child *child, int mount, uint64_t root, const char *path) {
    int target = mb_child_open_target(child, root, path, is_directory(mount));
    if (target < 0) {
        return -errno;
    }
    int error =
        is_led_astray(child, root, path, target) ? -EXDEV : result(mb_move_mount(mount, "", target, "", ATTACH_EMPTY));
    close(target);
    return error;
}

/* Attach a mount and close its descriptor. */
static int place(const struct mb_child *child, int mount, uint64_t root, const char *path) {
    if (mount < 0) {
        return -errno;
    }
    int error = attach_at(child, mount, root, path);
    close(mount);
    return error;
}

/* Attach a mount and keep its descriptor in a slot, to reach what is below it even if the path changes. */
static int place_and_keep(struct mb_child *child, int mount, uint64_t root, const char *path, uint64_t kept) {
    int error = mb_child_fill(child, kept, mount);
    return error ? error : attach_at(child, slot(child, kept), root, path);
}

int mb_child_set_options(int fs, const char *options) {
    char copy[4096];
    if (strlen(options) >= sizeof copy) {
        return -E2BIG;
    }
    strcpy(copy, options);
    for (char *option = copy, *next; *option; option = next) {
        char *value = option + strcspn(option, "=,");
        /* As in mount(8): an SELinux label that contains commas is in quotes. */
        char *quote = strncmp(value, "=\"", 2) ? NULL : strchr(value + 2, '"');
        next = quote ? quote : value;
        next += strcspn(next, ",");
        if (*next) {
            *next++ = '\0';
        }
        value = *value == '=' ? value + 1 : NULL;
        if (value) {
            value[-1] = '\0';
        }
        if (quote) {
            *quote = '\0';
            value++;
        }
        if (*option && mb_fsconfig(fs, value ? MB_FSCONFIG_SET_STRING : MB_FSCONFIG_SET_FLAG, option, value, 0)) {
            return -errno;
        }
    }
    return 0;
}

int mb_child_new_mount(const char *fstype, const char *source, const char *options, unsigned attributes) {
    int fs = mb_fsopen(fstype, 1 /* FSOPEN_CLOEXEC */);
    if (fs < 0) {
        return -errno;
    }
    int error = source ? result(mb_fsconfig(fs, MB_FSCONFIG_SET_STRING, "source", source, 0)) : 0;
    if (!error) {
        error = mb_child_set_options(fs, options);
    }
    if (!error) {
        error = result(mb_fsconfig(fs, MB_FSCONFIG_CMD_CREATE, NULL, NULL, 0));
    }
    if (!error) {
        int mount = mb_fsmount(fs, 1 /* FSMOUNT_CLOEXEC */, attributes);
        error = mount < 0 ? -errno : mount;
    }
    close(fs);
    return error;
}

/* mount(fstype, source, options, root, target, attributes, slot): the new mount API doesn't limit all options to
 * one page, and never resolves a path a second time. */
int mb_child_op_mount(struct mb_child *child, const uint64_t *a) {
    int mount = mb_child_new_mount(text(a[0]), text(a[1]), text(a[2]), (unsigned)a[5]);
    if (mount < 0) {
        return mount;
    }
    return place_and_keep(child, mount, a[3], text(a[4]), a[6]);
}

/* mount_overlay(directory, options, target): mount(2), since fsconfig(2) takes strings up to 256 bytes, and
 * "lowerdir+" came with Linux 6.5. Paths in options and target are relative to directory, so that many layers fit
 * into mount(2)'s one page. */
int mb_child_op_mount_overlay(struct mb_child *child, const uint64_t *a) {
    (void)child;
    if (chdir(text(a[0]))) {
        return -errno;
    }
    return result(mount("overlay", text(a[2]), "overlay", 0, text(a[1])));
}

/* open_tree(path, flags, slot): a detached copy of the mount at a path of this namespace. */
int mb_child_op_open_tree(struct mb_child *child, const uint64_t *a) {
    return mb_child_fill(child, a[2], mb_open_tree(AT_FDCWD, text(a[0]), MB_TREE_CLONE | O_CLOEXEC | (unsigned)a[1]));
}

/* clone_tree(place, flags, slot): like open_tree, for what another process has opened. */
int mb_child_op_clone_tree(struct mb_child *child, const uint64_t *a) {
    unsigned flags = MB_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH | (unsigned)a[1];
    return mb_child_fill(child, a[2], mb_open_tree(slot(child, a[0]), "", flags));
}

/* id_map(mount, recursive, userns): show the files of a detached mount with the ids of a user namespace: files of 0
 * on disk belong to the mapped root. Linux 5.12. */
int mb_child_op_id_map(struct mb_child *child, const uint64_t *a) {
    struct mb_mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)slot(child, a[2])};
    return result(mb_mount_setattr(slot(child, a[0]), "", AT_EMPTY_PATH | (a[1] ? AT_RECURSIVE : 0), &attr));
}

/* mount_attributes(mount, set, clear, propagation, recursive) */
int mb_child_op_mount_attributes(struct mb_child *child, const uint64_t *a) {
    struct mb_mount_attr attr = {.attr_set = a[1], .attr_clr = a[2], .propagation = a[3]};
    return result(mb_mount_setattr(slot(child, a[0]), "", AT_EMPTY_PATH | (a[4] ? AT_RECURSIVE : 0), &attr));
}

/* propagation(path, flags): mount(2)'s MS_PRIVATE and the like. */
int mb_child_op_propagation(struct mb_child *child, const uint64_t *a) {
    (void)child;
    return result(mount(NULL, text(a[0]), NULL, a[1], NULL));
}

/* attach(mount, root, target) */
int mb_child_op_attach(struct mb_child *child, const uint64_t *a) {
    return attach_at(child, slot(child, a[0]), a[1], text(a[2]));
}

/* bind(source, root, target, attributes, recursive) */
int mb_child_op_bind(struct mb_child *child, const uint64_t *a) {
    unsigned recursive = a[4] ? AT_RECURSIVE : 0;
    int tree = mb_open_tree(AT_FDCWD, text(a[0]), MB_TREE_CLONE | O_CLOEXEC | recursive);
    struct mb_mount_attr attr = {.attr_set = a[3]};
    if (tree >= 0 && a[3] && mb_mount_setattr(tree, "", AT_EMPTY_PATH | recursive, &attr)) {
        int error = -errno;
        close(tree);
        return error;
    }
    return place(child, tree, a[1], text(a[2]));
}

/* bind_fd(fd, root, target): bind the file of a descriptor. */
int mb_child_op_bind_fd(struct mb_child *child, const uint64_t *a) {
    int tree = mb_open_tree(slot(child, a[0]), "", MB_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH);
    return place(child, tree, a[1], text(a[2]));
}

/* Open a device of the host to bind, or -errno. It must have the right number (CVE-2025-31133), since in a shared
 * mount namespace the path isn't the host's. */
static int open_device(const char *path, mode_t mode, dev_t device) {
    int tree = mb_open_tree(AT_FDCWD, path, MB_TREE_CLONE | O_CLOEXEC);
    if (tree < 0) {
        return -errno;
    }
    if (!mb_child_is_device(tree, mode, device)) {
        close(tree);
        return -ENXIO;
    }
    return tree;
}

int mb_child_bind_device(const struct mb_child *child, const char *source, uint64_t root, const char *target,
                         mode_t mode, dev_t device) {
    int tree = open_device(source, mode, device);
    return tree < 0 ? tree : place(child, tree, root, target);
}

/* bind_device(source, root, target, mode and type, device): for a user namespace, where nobody can make devices. */
int mb_child_op_bind_device(struct mb_child *child, const uint64_t *a) {
    return mb_child_bind_device(child, text(a[0]), a[1], text(a[2]), (mode_t)a[3], (dev_t)a[4]);
}

/* expect_procfs(mount): it must be the root of a procfs, since another directory of procfs could belong to any
 * process. */
int mb_child_op_expect_procfs(struct mb_child *child, const uint64_t *a) {
    struct stat top;
    bool is_whole = fstat(slot(child, a[0]), &top) == 0 && top.st_ino == 1 /* PROC_ROOT_INO */;
    return is_whole && mb_child_is_on(slot(child, a[0]), PROC_SUPER_MAGIC) ? 0 : -EMEDIUMTYPE;
}

/* Open what is to be masked or made read-only, or -errno. -ENOENT is fine: files of procfs and sysfs are looked up
 * below the descriptor of that mount, which nobody can exchange, and what the container removes from its own
 * directory it could read before. */
static int open_closed(const struct mb_child *child, const uint64_t *a) {
    int target = mb_child_open_in(child, a[0], text(a[1]), O_PATH);
    return target >= 0 ? target : errno == ENOTDIR ? -ENOENT : -errno;
}

/* mask(root, path): hide its content. */
int mb_child_op_mask(struct mb_child *child, const uint64_t *a) {
    int target = open_closed(child, a);
    if (target < 0) {
        return target == -ENOENT ? 0 : target;
    }
    int cover = is_directory(target)
                    ? mb_child_new_mount("tmpfs", NULL, "size=0,nr_inodes=1,mode=0755",
                                         MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
                    : open_device("/dev/null", S_IFCHR, makedev(1, 3)); /* the host's, which an image can't fake */
    int error = cover;
    if (cover >= 0) {
        error = result(mb_move_mount(cover, "", target, "", ATTACH_EMPTY));
        close(cover);
    }
    close(target);
    return error;
}

/* read_only(root, path): mount the path over itself, read-only. */
int mb_child_op_read_only(struct mb_child *child, const uint64_t *a) {
    int target = open_closed(child, a);
    if (target < 0) {
        return target == -ENOENT ? 0 : target;
    }
    struct mb_mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    unsigned flags = AT_EMPTY_PATH | AT_RECURSIVE;
    int tree = mb_open_tree(target, "", MB_TREE_CLONE | O_CLOEXEC | flags);
    int error = tree < 0 ? -errno : result(mb_mount_setattr(tree, "", flags, &attr));
    if (!error) {
        error = result(mb_move_mount(tree, "", target, "", ATTACH_EMPTY));
    }
    if (tree >= 0) {
        close(tree);
    }
    close(target);
    return error;
}

/* attributes_at(root, target, set, clear, propagation, recursive): for the mount at target. */
int mb_child_op_attributes_at(struct mb_child *child, const uint64_t *a) {
    int target = mb_child_open_in(child, a[0], text(a[1]), O_PATH);
    if (target < 0) {
        return -errno;
    }
    struct mb_mount_attr attr = {.attr_set = a[2], .attr_clr = a[3], .propagation = a[4]};
    int error = result(mb_mount_setattr(target, "", AT_EMPTY_PATH | (a[5] ? AT_RECURSIVE : 0), &attr));
    close(target);
    return error;
}

/* reconfigure(root, target, options): change the file system mounted at target. */
int mb_child_op_reconfigure(struct mb_child *child, const uint64_t *a) {
    int target = mb_child_open_in(child, a[0], text(a[1]), O_PATH);
    int fs = target < 0 ? -1 : mb_fspick(target, "", 1 | 8 /* FSPICK_CLOEXEC | FSPICK_EMPTY_PATH */);
    int error = fs < 0 ? -errno : mb_child_set_options(fs, text(a[2]));
    if (!error) {
        error = result(mb_fsconfig(fs, MB_FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0));
    }
    if (fs >= 0) {
        close(fs);
    }
    if (target >= 0) {
        close(target);
    }
    return error;
}

static bool has_mode(const char *options) {
    for (; *options; options += strcspn(options, ","), options += *options == ',') {
        if (!strncmp(options, "mode=", 5)) {
            return true;
        }
    }
    return false;
}

/* mount_tmpfs(options, root, target, attributes, copy, slot): with the mode of the directory that it covers, unless
 * the options set one; with `copy`, also with its content. */
int mb_child_op_mount_tmpfs(struct mb_child *child, const uint64_t *a) {
    int before = mb_child_open_in(child, a[1], text(a[2]), O_PATH);
    const bool keeps_mode = before >= 0 && !has_mode(text(a[0]));
    if (before >= 0) {
        close(before);
    }
    int target = mb_child_open_target(child, a[1], text(a[2]), true);
    if (target < 0) {
        return -errno;
    }
    struct stat covered;
    int mount = fstat(target, &covered)
                    ? -errno
                    : mb_child_new_mount("tmpfs", "tmpfs", text(a[0]), (unsigned)a[3] & ~MOUNT_ATTR_RDONLY);
    int error = mount < 0 ? mount : 0;
    int top = error ? -1 : openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!error && top < 0) {
        error = -errno;
    }
    if (!error && a[4] && fchown(top, covered.st_uid, covered.st_gid) && errno != EINVAL && errno != EPERM) {
        error = -errno;
    }
    if (!error && keeps_mode) {
        error = result(fchmod(top, covered.st_mode & 07777));
    }
    int source = error || !a[4] ? -1 : mb_child_open_in(child, a[1], text(a[2]), O_RDONLY | O_DIRECTORY);
    if (!error && a[4]) {
        error = source < 0 ? -errno : mb_child_copy(source, top);
    }
    struct mb_mount_attr attr = {.attr_set = a[3] & MOUNT_ATTR_RDONLY};
    if (!error && attr.attr_set) {
        error = result(mb_mount_setattr(mount, "", AT_EMPTY_PATH, &attr));
    }
    if (!error) {
        error = is_led_astray(child, a[1], text(a[2]), target)
                    ? -EXDEV
                    : result(mb_move_mount(mount, "", target, "", ATTACH_EMPTY));
    }
    if (!error) {
        error = mb_child_fill(child, a[5], mount);
        mount = -1;
    }
    const int fds[] = {source, top, mount, target};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    return error;
}

/* chroot(root): in a shared mount namespace, where others keep their root. */
int mb_child_op_chroot(struct mb_child *child, const uint64_t *a) {
    if (fchdir(slot(child, a[0])) || chroot(".")) {
        return -errno;
    }
    return result(chdir("/"));
}

/* unmount(path, mount id): exactly that mount, with all below it, and not another one mounted there since. Linux
 * 5.8. */
int mb_child_op_unmount(struct mb_child *child, const uint64_t *a) {
    (void)child;
    int fd = open(text(a[0]), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
    }
    struct statx found;
    int error = result(statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &found));
    if (!error && found.stx_mnt_id == a[1]) {
        error = fchdir(fd) || umount2(".", MNT_DETACH) ? -errno : 0;
    }
    close(fd);
    return error;
}

/* pivot_root(root): with "." for both, the old root is stacked on the new one at "/", and the unmount of "." takes
 * the topmost one, the old root; pivot_root(2), NOTES. MNT_DETACH, because this process still has files of the old
 * root open. */
int mb_child_op_pivot_root(struct mb_child *child, const uint64_t *a) {
    if (fchdir(slot(child, a[0])) || mb_pivot_root(".", ".") || umount2(".", MNT_DETACH)) {
        return -errno;
    }
    return result(chdir("/"));
}
