/* The request to look after a container (`mb_supervise_request`), taken apart. */
#ifndef MB_SUPERVISOR_REQUEST_H
#define MB_SUPERVISOR_REQUEST_H

#include "parent/requests.h"
#include "parent/supervisor.h"

struct mb_supervise_texts {
    char *log_path, *exit_path;
    char **after, **health; /* commands; `health` is NULL without one */
};

/* Check a request and take its texts apart; 0, or -EPROTO. The texts are used from the message, so it must stay. */
int mb_supervise_texts(struct mb_received *message, struct mb_supervise_texts *texts);

#endif
