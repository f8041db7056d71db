/* Receives calls and sends replies over a unix stream socket. Nothing is believed that the other side says. */
#define _GNU_SOURCE /* MSG_CMSG_CLOEXEC */
#include "serving/frame.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { VERSION = 1, WITH_SEGMENTS = 1, ALIGNMENT = 64, SENT = 2 };

/* Keep the descriptors that came with a frame. Returns how many there were: what a message has room for. */
static int take_descriptors(struct msghdr *message, int32_t *descriptors)
{
    const struct cmsghdr *part = CMSG_FIRSTHDR(message); /* two do not fit */
    if (!part || part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
        return 0;
    int count = (part->cmsg_len - CMSG_LEN(0)) / sizeof *descriptors;
    memcpy(descriptors, CMSG_DATA(part), sizeof *descriptors * count);
    return count;
}

static void drop_descriptors(Caller *caller)
{
    for (int i = 0; i < SENT; i++) {
        if (caller->descriptors[i] != NO_DESCRIPTOR)
            close(caller->descriptors[i]);
        caller->descriptors[i] = NO_DESCRIPTOR;
    }
}

/* Receive on until `wanted` bytes are there. */
static Outcome receive_until(Caller *caller, int64_t *got, int64_t wanted)
{
    while (*got < wanted) {
        ssize_t more = recv(caller->socket, caller->frame + *got, FRAME - *got, 0);
        if (more == 0)
            return CUT_SHORT;
        if (more < 0 && errno != EINTR)
            return SYSTEM;
        *got += more > 0 ? more : 0;
    }
    return CALLED;
}

/* The rest of a call of which `got` bytes have come, and `count` descriptors. */
static Outcome receive_rest(Caller *caller, int64_t got, int count, bool truncated)
{
    const CallHeader *header = (const CallHeader *)caller->frame;
    if (truncated)
        return DESCRIPTORS;
    Outcome outcome = receive_until(caller, &got, HEADER);
    if (outcome != CALLED)
        return outcome;
    if (memcmp(header->magic, "FMcq", 4) != 0 || header->version != VERSION || header->flags > WITH_SEGMENTS)
        return NOT_A_CALL;
    bool in_frame = header->payload_at == IN_FRAME;
    if (in_frame && header->payload_length > MAX_INLINE)
        return TOO_LONG;
    if (count != SENT * header->flags)
        return DESCRIPTORS;
    int64_t end = HEADER + (in_frame ? (int64_t)header->payload_length : 0);
    outcome = receive_until(caller, &got, end);
    return outcome == CALLED && got != end ? BEHIND : outcome;
}

Outcome receive_call(Caller *caller)
{
    union {
        char bytes[CMSG_SPACE(SENT * sizeof(int32_t))];
        struct cmsghdr aligned;
    } control;
    struct iovec part = {caller->frame, FRAME};
    struct msghdr message;
    ssize_t got;
    do {
        memset(&message, 0, sizeof message); /* with what lies between its members, which musl and the kernel read */
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        got = recvmsg(caller->socket, &message, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got <= 0)
        return got == 0 ? CLOSED : SYSTEM;
    int count = take_descriptors(&message, caller->descriptors);
    Outcome outcome = receive_rest(caller, got, count, message.msg_flags & MSG_CTRUNC);
    if (outcome != CALLED)
        drop_descriptors(caller);
    return outcome;
}

/* The bytes of a segment from `at` on. False if they are not all inside. */
static bool inside(const Area *segment, uint64_t at, uint64_t length, char **memory)
{
    if (!segment->size || at % ALIGNMENT != 0 || at > segment->size || length > segment->size - at)
        return false;
    *memory = segment->memory + at;
    return true;
}

bool locate_call(Caller *caller)
{
    const CallHeader *header = (const CallHeader *)caller->frame;
    char *payload = caller->frame + HEADER, *shared = NULL, *room = NULL;
    bool found = true;
    if (header->reply_length)
        found = inside(&caller->replies, header->reply_at, header->reply_length, &room);
    if (found && header->payload_at != IN_FRAME)
        found = inside(&caller->requests, header->payload_at, header->payload_length, &payload);
    if (found && header->shared_length)
        found = inside(&caller->requests, header->shared_at, header->shared_length, &shared);
    caller->call = (Call){payload, header->payload_length, shared, header->shared_length, 0,
                          {room, header->reply_length}};
    return found;
}

bool send_reply(Caller *caller, Status status, bool crowded, int64_t length, int64_t busy)
{
    ReplyHeader header = {{'F', 'M', 'c', 'a'}, VERSION, status, crowded, length, caller->thread, {0}, {0}};
    memcpy(header.busy, &busy, sizeof busy);
    memcpy(caller->reply, &header, sizeof header);
    int64_t end = HEADER + (status == STORED ? 0 : length);
    ssize_t sent;
    do
        sent = send(caller->socket, caller->reply, end, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent >= 0;
}
