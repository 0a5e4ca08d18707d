export function sourceDate(text?: string): number | undefined;
