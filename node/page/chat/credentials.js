// The dialog of the login: over the page, so that nothing behind it is lost.

import { byId } from './dom.js';
import { inWords } from './failure.js';
import { logIn, useToken } from './session.js';

/** Shown until the person is logged in. */
export function askToLogIn(why) {
  const dialog = byId('log-in');
  const [byPassword, byToken] = [byId('log-in-form'), byId('token-form')];
  byId('log-in-why').textContent = why;
  byId('log-in-why').hidden = !why;
  const choose = (form) => {
    byPassword.hidden = form !== byPassword;
    byToken.hidden = form !== byToken;
    form.querySelector('input, textarea').focus();
  };
  byId('use-token').onclick = () => choose(byToken);
  byId('use-password').onclick = () => choose(byPassword);
  // There is nothing behind it without a login.
  dialog.oncancel = (event) => event.preventDefault();
  return new Promise((done) => {
    const tried = (wrong, attempt) => async (event) => {
      event.preventDefault();
      const submit = event.target.querySelector('[type=submit]');
      submit.disabled = true;
      wrong.textContent = '';
      try {
        await attempt();
        for (const form of [byPassword, byToken]) form.reset();
        dialog.close();
        done();
      } catch (error) {
        wrong.textContent = refusal(error);
      } finally {
        submit.disabled = false;
      }
    };
    byPassword.onsubmit = tried(byId('log-in-wrong'), () => logIn(byId('username').value, byId('password').value));
    byToken.onsubmit = tried(byId('token-wrong'), () => useToken(byId('token').value.trim()));
    if (!dialog.open) dialog.showModal();
    choose(byPassword);
  });
}

function refusal(error) {
  if (error.status === 401) return `That is not right. Try again. (Request ${error.requestId})`;
  if (error.status === 429) return 'Too many attempts. Wait a little, and try again.';
  return inWords(error);
}
