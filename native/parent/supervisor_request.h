/* The parsed request to watch a container (`mb_supervise_request`). */
#ifndef MB_SUPERVISOR_REQUEST_H
#define MB_SUPERVISOR_REQUEST_H

#include "parent/requests.h"
#include "parent/supervisor.h"

struct mb_supervise_texts {
    char *log_path, *exit_path;
    char **after, **health; /* commands; `health` is NULL if there is none */
    struct mb_plan end;     /* without operations if there is none, or one that we don't know */
};

/* Check and parse a request; returns 0 or -EPROTO. The texts point into the message, which must stay. */
int mb_supervise_texts(struct mb_received *message, struct mb_supervise_texts *texts);

#endif
