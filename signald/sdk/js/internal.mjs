// Names of properties that are shortened in what is built: of the core, which nothing outside of the package reads. None of a state that is
// stored, none of an option or of a message, and none that a built-in object has.

const NAMES = `
  openedAt lastReceivedAt restoreUnacked ackAgain exhausted pingedAt retiredAt heartbeatS retiring chatHistory logLost turnedDown
  refusal streamNews isMoving failure stuckAt unreachable showNext replan plan due wakeAt probe hurry attach acked turned bound accepted
  finished established moving broken usable refused orderly waiting carrier checkPeer checkSize alone inbox dropped schedule over tries
  pace reset failed wrongUrl retryAfterMs finish blocked leaves awake held hold opening current control uniform events receive write
  take begin sent opened frame cut back load save apiToken frames entry opens extend endedBy budget extensions isOwn
`;

export const mangleProps = new RegExp(`^(${NAMES.trim().split(/\s+/).join("|")})$`);
