// What a page needs once a session or a dialog is open; loaded when the first page already takes clicks and keys.
import './caption.js';
import './dialogs.js';
import './gallery.js';
import './panels.js';
import './stage.js';
import './tools.js';
import './turns.js';
