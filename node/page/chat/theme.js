// Light, dark, or as the system has it. A script of its own, run before anything is painted, so that nothing flashes.
(() => {
  const KEPT = 'klatch.theme';
  const SIGNS = { auto: '◐', light: '☀', dark: '☾' };
  const next = { auto: 'light', light: 'dark', dark: 'auto' };
  const kept = () => {
    const value = localStorage.getItem(KEPT);
    return value in next ? value : 'auto';
  };
  const show = () => {
    const theme = kept();
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById('theme');
    if (!button) return;
    button.textContent = SIGNS[theme];
    button.title = button.ariaLabel = `Colours: ${theme === 'auto' ? 'as the system' : theme}`;
  };
  show();
  document.addEventListener('DOMContentLoaded', () => {
    show();
    document.getElementById('theme').addEventListener('click', () => {
      localStorage.setItem(KEPT, next[kept()]);
      show();
    });
  });
  addEventListener('storage', (event) => event.key === KEPT && show());
})();
