/** Base of the errors of this package. */
export class SignaldError extends Error {
  override name = "SignaldError";
}

/** A value that the service would refuse; nothing was sent. */
export class Unsendable extends SignaldError {
  override name = "Unsendable";
}

/** The session cannot be taken up (again). `code` is the close code, if there was one. */
export class SessionGone extends SignaldError {
  override name = "SessionGone";
  readonly code: number | null;
  readonly reason: string;

  constructor(code: number | null, reason: string) {
    super(code === null ? reason : `${code}: ${reason}`);
    this.code = code;
    this.reason = reason;
  }
}

/** The service never took this client: a wrong credential, a wrong URL. */
export class Refused extends SessionGone {
  override name = "Refused";
}

/** Of the core, for its driver: the connection must be cut. */
export class LinkBroken extends Error {}
