"""Declarations of libsystemd's sd-bus for cffi, out-of-line ABI mode: writes the Python file minibox/_systemd.py.

As for libseccomp: no header is needed to install, and the library is opened only where systemd is asked for
something. Opening it takes 2 ms; a D-Bus library in Python took 15. Source: sd-bus.h of systemd 252.
"""

from __future__ import annotations

from cffi import FFI

ffibuilder = FFI()
ffibuilder.set_source("minibox._systemd", None)
ffibuilder.cdef(
    """
    typedef struct sd_bus sd_bus;
    typedef struct sd_bus_message sd_bus_message;
    typedef struct { const char *name; const char *message; int need_free; } sd_bus_error;

    int sd_bus_new(sd_bus **ret);
    int sd_bus_set_address(sd_bus *bus, const char *address);
    int sd_bus_set_bus_client(sd_bus *bus, int b);
    int sd_bus_start(sd_bus *bus);
    sd_bus *sd_bus_flush_close_unref(sd_bus *bus);
    int sd_bus_process(sd_bus *bus, sd_bus_message **ret);
    int sd_bus_wait(sd_bus *bus, uint64_t timeout_usec);
    int sd_bus_call(sd_bus *bus, sd_bus_message *m, uint64_t usec, sd_bus_error *error, sd_bus_message **reply);
    void sd_bus_error_free(sd_bus_error *e);

    int sd_bus_message_new_method_call(sd_bus *bus, sd_bus_message **m, const char *destination,
                                       const char *path, const char *interface, const char *member);
    int sd_bus_message_append(sd_bus_message *m, const char *types, ...);
    int sd_bus_message_open_container(sd_bus_message *m, char type, const char *contents);
    int sd_bus_message_close_container(sd_bus_message *m);
    int sd_bus_message_read(sd_bus_message *m, const char *types, ...);
    int sd_bus_message_is_signal(sd_bus_message *m, const char *interface, const char *member);
    sd_bus_message *sd_bus_message_unref(sd_bus_message *m);
    """
)

if __name__ == "__main__":
    ffibuilder.emit_python_code("minibox/_systemd.py")
