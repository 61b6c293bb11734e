// Names of properties that are shortened in what is built: of the core, which nothing outside of the package reads. None of a state that is
// stored, of an option, of an event or of a message, and none that is read of an object of the platform. The programs in test/ run on what is built.

const NAMES = `
  accepted ackAgain acked alone apiToken attach begin blocked bound broken carrier chatHistory checkPeer checkSize control current cut dropped established
  exhausted extend failure finish finished frames heartbeatS held hold hurry inbox isMoving lastReceivedAt load logLost openedAt opened opening orderly over
  pace pingedAt plan positions probe receive replan restoreUnacked retiredAt retiring retryAfterMs save schedule shapes showNext streamNews stuckAt take
  due failed moving refused reset sent tries turned turnedDown uniform unreachable usable wakeAt write wrongUrl
`;

export const mangleProps = new RegExp(`^(${NAMES.trim().split(/\s+/).join("|")})$`);
