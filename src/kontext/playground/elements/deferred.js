// Elements that are needed once a session or dialog is open; loaded when the start page is already interactive.
import './caption.js';
import './dialogs.js';
import './gallery.js';
import './panels.js';
import './stage.js';
import './tools.js';
import './turns.js';
