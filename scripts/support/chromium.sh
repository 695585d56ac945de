# Sourced by scripts that want a browser: sets VRAMTRACE_TEST_CHROMIUM to a Chromium, or to nothing where none can be had.
#
# One that is named or installed; Playwright's (reader/page must have been set up), where that can be fetched; or Debian's,
# unpacked below target/ with the libraries that this machine lacks. Nothing is installed.

find_chromium() { # ROOT-OF-THE-REPOSITORY
    local found=${VRAMTRACE_TEST_CHROMIUM-}
    [[ $found ]] || found=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
    if [[ ! $found ]] && (cd "$1/reader/page" && npx playwright install chromium-headless-shell) >/dev/null 2>&1; then
        found=$(cd "$1/reader/page" && node -e 'console.log(require("playwright").chromium.executablePath())')
    fi
    [[ $found ]] || found=$(debians_chromium "${CARGO_TARGET_DIR:-$1/target}/page-tools" || true)
    [[ -x $found ]] || found=
    export VRAMTRACE_TEST_CHROMIUM=$found
}

debians_chromium() { # FOLDER
    local folder
    folder=$(realpath -m "$1")
    if [[ ! -x $folder/chromium ]]; then
        command -v apt-get >/dev/null || return 1
        mkdir -p "$folder/archives/partial"
        apt-get -qq -o Dir::Cache::archives="$folder/archives" -o APT::Sandbox::User=root install --download-only \
            --no-install-recommends -y chromium >/dev/null 2>&1 || return 1
        for package in "$folder"/archives/*.deb; do
            [[ -e $package ]] && dpkg -x "$package" "$folder/root"
        done
        rm -rf "$folder/archives"
        [[ -x $folder/root/usr/lib/chromium/chromium ]] || return 1
        local libraries
        libraries=$(find "$folder/root" -name '*.so*' -path '*-linux-gnu*' -printf '%h\n' | sort -u | paste -sd:)
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "'$libraries'" "'$folder/root/usr/lib/chromium/chromium'" >"$folder/chromium"
        chmod +x "$folder/chromium"
    fi
    echo "$folder/chromium"
}
