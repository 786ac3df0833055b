/* File systems in a file. */
#ifndef MB_IMAGE_H
#define MB_IMAGE_H

/* A detached read-only mount of the EROFS image `path`: its descriptor, or -errno. From the file
 * itself (Linux 6.12), else through a loop device that goes with the mount. Needs the host's root.
 * May be called between clone and exec. */
int mb_open_image(const char *path);

#endif
