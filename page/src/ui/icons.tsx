/** Line icons, drawn on a grid of 16. */
const icon = (path: string) => (
  <svg width="16" height="16" viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">
    <path d={path} />
  </svg>
);
export const MarketIcon = () => icon("M4 2v2m0 6v3M2.5 4h3v6h-3ZM11.500 3v3m0 5v3M10 6h3v5h-3Z");
export const PipelineIcon = () => icon("M1.500 8h3m7 0h3M4.500 5.500h3v5h-3Zm4-2v9m0-9h3v9h-3");
export const IntegrityIcon = () => icon("M8 1.500 13.500 4v4c0 3.300-2.300 5.500-5.500 6.500C4.800 13.500 2.500 11.300 2.500 8V4ZM5.700 8l1.700 1.700 3-3.200");
export const ArchiveIcon = () => icon("M2 3h12v3H2Zm1 3h10v7.500H3ZM6.500 9h3");
export const LogIcon = () => icon("M2 3.500h12M2 8h12M2 12.500h7");
export const SunIcon = () => icon("M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6ZM8 1v1.200M8 13.800V15M1 8h1.200M13.800 8H15M3 3l.9.900m8.200 8.200.9.900M3 13l.9-.9m8.200-8.200.9-.9");
export const MoonIcon = () => icon("M13.500 9.700A6 6 0 0 1 6.300 2.500a6 6 0 1 0 7.200 7.200Z");
export const HelpIcon = () => icon("M5.700 5.800a2.300 2.300 0 1 1 3.300 2.100c-.7.300-1 .8-1 1.500m0 2.400v.1");
