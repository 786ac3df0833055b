/* The operation open_image: layers that are EROFS images, or directories where no image could be made. Rules as in
 * child.c. */
#include "child/image.h"
#include "child/operations.h"
#include "syscalls.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <string.h>
#include <sys/ioctl.h>

enum { LOOP_TRIES = 64 }; /* between finding a free device and taking it, others may take it */

#define LOOP_DEVICE "/dev/loop"

/* "/dev/loop<number>"; `path` holds 32 bytes. */
static void name_loop_device(char *path, unsigned number) {
    char digits[12];
    unsigned count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
    } while (number /= 10);
    char *end = path + strlen(strcpy(path, LOOP_DEVICE));
    while (count) {
        *end++ = digits[--count];
    }
    *end = '\0';
}

/* Attach `image` to a free loop device, read-only and for as long as it is used. Returns a descriptor of the
 * device, or -errno. */
static int take_loop_device(int image, char *path) {
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0) {
        return -errno;
    }
    int device = -1, error = -EBUSY;
    for (int tries = 0; tries < LOOP_TRIES && error == -EBUSY; tries++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0) {
            error = -errno;
            break;
        }
        name_loop_device(path, (unsigned)number);
        device = open(path, O_RDONLY | O_CLOEXEC);
        struct loop_config config = {.fd = (unsigned)image, .info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR};
        error = device < 0 ? -errno : result(ioctl(device, LOOP_CONFIGURE, &config));
        if (error && device >= 0) {
            close(device);
        }
    }
    close(control);
    return error ? error : device;
}

static int by_loop_device(const char *path) {
    int image = open(path, O_RDONLY | O_CLOEXEC);
    if (image < 0) {
        return -errno;
    }
    char name[32];
    int device = take_loop_device(image, name);
    int mount = device < 0 ? device : mb_child_new_mount("erofs", name, "ro", MOUNT_ATTR_RDONLY);
    if (device >= 0) {
        close(device); /* from here on the mount keeps the device */
    }
    close(image);
    return mount;
}

int mb_open_image(const char *path) {
    int directory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory >= 0) {
        int tree = mb_open_tree(directory, "", MB_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH);
        int error = tree < 0 ? -errno : tree;
        close(directory);
        return error;
    }
    int mount = mb_child_new_mount("erofs", path, "ro", MOUNT_ATTR_RDONLY);
    return mount == -ENOTBLK ? by_loop_device(path) : mount;
}

/* open_image(path, slot) */
int mb_child_op_open_image(struct mb_child *child, const uint64_t *a) {
    int mount = mb_open_image(text(a[0]));
    if (mount < 0) {
        return mount;
    }
    return mb_child_fill(child, a[1], mount);
}
