// What the stores of the hooks have in common: a value that is another object when it has changed, and those who look at it. No React.

/** A value, and who is told when it changes: what `useSyncExternalStore` asks for. */
export class Store<T> {
  #value: T;
  readonly #watchers = new Set<() => void>();

  constructor(value: T) {
    this.#value = value;
  }

  /** The value; the same object until it changes. */
  readonly snapshot = (): T => this.#value;

  /** Be told of changes; the function that is returned ends it. */
  readonly subscribe = (watcher: () => void): (() => void) => {
    this.#watchers.add(watcher);
    if (this.#watchers.size === 1) this.begins();
    return () => {
      if (this.#watchers.delete(watcher) && this.#watchers.size === 0) this.ends();
    };
  };

  get watched(): boolean {
    return this.#watchers.size > 0;
  }

  /** The first watcher has come. */
  protected begins(): void {}

  /** The last watcher has gone. */
  protected ends(): void {}

  protected set(value: T): void {
    this.#value = value;
    for (const watcher of [...this.#watchers]) watcher();
  }
}
