#!/bin/sh
# Makes caller.wav and agent.wav again: the two sides of one call, both from time 0 to its end.
# Needs espeak-ng and sox.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

level_dbfs=-20 # RMS of each turn
end_s=0        # where the turn before ends

# turn WHO PAUSE_S TEXT: begins PAUSE_S after the end of the turn before; a negative pause begins
# inside it.
turn() {
    case $1 in
        caller) espeak-ng -v en-us+f3 -p 58 -s 180 -w "$work/raw.wav" "$3" ;;
        agent) espeak-ng -v en-us+m3 -p 36 -s 185 -w "$work/raw.wav" "$3" ;;
    esac
    # A telephone's band, and no silence around the words.
    sox -D "$work/raw.wav" -r 8000 "$work/band.wav" gain -3 highpass 200 lowpass 3400 \
        silence 1 0.01 0.5% reverse silence 1 0.01 0.5% reverse
    rms_db=$(sox "$work/band.wav" -n stats 2>&1 | awk '/^RMS lev dB/ { print $4 }')
    gain_db=$(awk "BEGIN { print $level_dbfs - ($rms_db) }")
    start_s=$(awk "BEGIN { print $end_s + ($2) }")
    sox -D "$work/band.wav" "$work/$1-$start_s.wav" \
        gain -l "$gain_db" gain -0.3 fade t 0.005 0 0.02 pad "$start_s"
    end_s=$(soxi -D "$work/$1-$start_s.wav")
}

turn agent 0.5 "Lantern Books, good morning, this is Daniel. How can I help?"
turn caller 0.6 "Hi Daniel. I ordered an atlas last week, and it still isn't here."
turn agent 0.5 "I'm sorry. Could you read me the order number?"
turn caller 0.9 "Sure. Four, seven, one, nine."
turn agent 0.7 "Thank you. It left our warehouse today, and will be with you tomorrow."
turn caller -0.6 "Oh, that is wonderful! Goodbye."
turn agent 0.4 "Goodbye."

# The longest input sets the length of a mix.
total_s=$(awk "BEGIN { print $end_s + 0.6 }")
sox -D -n -r 8000 -b 16 "$work/silence.wav" trim 0 "$total_s"
for who in caller agent; do
    set -- -v 1 "$work/silence.wav"
    for wav in "$work/$who"-*.wav; do set -- "$@" -v 1 "$wav"; done
    sox -D -m "$@" -e mu-law -b 8 "$who.wav"
done
