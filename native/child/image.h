/* File systems in a file. */
#ifndef MB_IMAGE_H
#define MB_IMAGE_H

/* Mount the EROFS image `path` detached and read-only; returns the mount's descriptor, or -errno. Mounts the file
 * itself (Linux 6.12), or else through a loop device that goes with the mount. Needs the host's root. May be called
 * between clone and exec. */
int mb_open_image(const char *path);

#endif
