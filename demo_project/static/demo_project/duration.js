/** Formats seconds: "<1 ms", "12 ms" or "1.23 s". */
export function duration(seconds) {
  const ms = seconds * 1000;
  if (ms < 0.95) return "<1 ms";
  return ms < 999.5 ? `${ms.toFixed(0)} ms` : `${seconds.toFixed(2)} s`;
}
