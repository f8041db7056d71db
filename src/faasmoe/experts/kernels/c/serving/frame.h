/* Frames of calls and replies on an instance's side of a connection, as platforms/local/protocol/frame.py has them. */
#pragma once

#include "base/kernels.h"

enum { HEADER = 64, MAX_INLINE = 32 << 10, FRAME = HEADER + MAX_INLINE, NO_DESCRIPTOR = -1 };
#define IN_FRAME UINT64_MAX /* instead of a place in shared memory */

/* What `receive_call` returns, and `next_call`. */
typedef enum {
    CLOSED,      /* the connection, between two calls */
    CALLED,      /* a call is there, which Python must answer */
    SEGMENTS,    /* a call is there, and with it descriptors of segments, which Python must map */
    SYSTEM,      /* the connection broke */
    CUT_SHORT,   /* it closed in the middle of a call */
    NOT_A_CALL,  /* magic, version or flags */
    TOO_LONG,    /* more bytes than a frame has room for were announced */
    DESCRIPTORS, /* another number of them than flags announce */
    BEHIND,      /* there are bytes behind the end of the call */
    OUTSIDE,     /* a place is not inside of the segments */
} Outcome;

typedef enum { ANSWERED, STORED, FAILED, DRAINING, UNLOADABLE } Status; /* frame.py's */

/* Of a call. Places are offsets into the caller's segments. */
typedef struct {
    char magic[4];
    uint16_t version, flags;
    uint64_t payload_at, payload_length, shared_at, shared_length, reply_at, reply_length, unused;
} CallHeader;

typedef struct {
    char magic[4];
    uint16_t version;
    uint8_t status, crowded;
    uint64_t length;
    uint32_t thread;
    uint32_t busy[2]; /* a number of 64 bits that lies at no multiple of 8 */
    char unused[36];
} ReplyHeader;

_Static_assert(sizeof(CallHeader) == HEADER && sizeof(ReplyHeader) == HEADER, "frames of another layout");

typedef struct {
    char *memory;
    uint64_t size; /* bytes; 0: there is none */
} Area;

/* A call, where it lies in memory. */
typedef struct {
    const char *payload;
    int64_t length;
    const char *shared; /* NULL: there is nothing shared */
    int64_t shared_length;
    int64_t waited; /* nanoseconds for its slot */
    Area room;      /* that the caller foresaw for the reply, in the segment for replies */
} Call;

/* An instance's end of one connection (instance/connection.py). */
typedef struct {
    _Alignas(64) char frame[FRAME]; /* the call that has come */
    char reply[FRAME];
    int32_t socket;
    uint32_t thread;        /* the kernel's id of the one that serves it */
    Area requests, replies; /* the caller's segments */
    int32_t descriptors[2]; /* of new ones, or NO_DESCRIPTOR */
    int32_t received;       /* whether a call is in `frame` that was not begun */
    Call call;
    int64_t arrived, share; /* when the call that runs came, and what `BusyTime` has to know of it */
} Caller;

/* Wait for the next call, and receive it whole. Returns CALLED or why there is none. */
Outcome receive_call(Caller *caller);

/* Find out where the parts of the call that was received lie. False if they are not inside of the segments. */
bool locate_call(Caller *caller);

/* Send a reply of `length` bytes, which are in `reply` behind its header unless `status` is STORED. False: lost. */
bool send_reply(Caller *caller, Status status, bool crowded, int64_t length, int64_t busy);
