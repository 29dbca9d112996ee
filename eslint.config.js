import js from '@eslint/js';
import globals from 'globals';

export default [
  { ignores: ['**/vendor/', 'node_modules/', '.venv/', 'build/'] },
  js.configs.recommended,
  {
    files: ['src/kontext/playground/**/*.js'],
    languageOptions: { globals: globals.browser },
    rules: {
      eqeqeq: 'error',
      'no-var': 'error',
      'prefer-const': ['error', { destructuring: 'all' }],
      'no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_', caughtErrors: 'none' }],
      'no-shadow': 'error',
      'no-console': ['error', { allow: ['error'] }],
      camelcase: ['error', { properties: 'never', ignoreDestructuring: true }],
    },
  },
  { files: ['tests/**/*.mjs'], languageOptions: { globals: globals.node } },
];
