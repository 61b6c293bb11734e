// Names of properties that are shortened in what is built: of the core, which nothing outside of it reads. None of a state that is stored.

const NAMES = `
  openedAt lastReceivedAt restoreUnacked ackAgain exhausted pingedAt retiredAt heartbeatS retiring chatHistory logLost turnedDown
  refusal streamNews isMoving failure stuckAt unreachable showNext replan plan due wakeAt probe hurry attach acked turned bound accepted
  finished established moving broken usable refused checkPeer checkSize alone inbox ended dropped schedule over tries pace reset failed wrongUrl retryAfterMs lost finish blocked room
  leaves awake held hold opening current control orderly waiting carrier
`;

export const mangleProps = new RegExp(`^(${NAMES.trim().split(/\s+/).join("|")})$`);
