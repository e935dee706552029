export function Integrity() { return null; }
