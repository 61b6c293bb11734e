export const mangleProps: RegExp;
