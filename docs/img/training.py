"""Draws training-loss.svg: validation losses as the two runs of training.md logged them.

    python3 docs/img/training.py
"""

import pathlib

CURVES = {
    "attention, 4.46 M": ("#d55e00", [(100, 4.6486), (200, 3.7476), (300, 3.3975), (400, 3.1800), (500, 2.9699),
                                     (600, 2.8420), (700, 2.7487), (800, 2.6659), (900, 2.6368), (1000, 2.6152)]),
    "TTT-Linear, 4.59 M": ("#0072b2", [(200, 2.962), (400, 2.616), (600, 2.413), (800, 2.334), (1000, 2.286)]),
}
LEFT, RIGHT, TOP, BOTTOM = 60, 560, 30, 330
LOW, HIGH = 2.0, 5.0


def place(step, loss):
    return LEFT + (RIGHT - LEFT) * step / 1000, BOTTOM - (BOTTOM - TOP) * (loss - LOW) / (HIGH - LOW)


lines = ['<svg xmlns="http://www.w3.org/2000/svg" width="740" height="390" font-family="sans-serif" font-size="12">',
         '<rect width="740" height="390" fill="white"/>']
for tick in (2, 2.5, 3, 3.5, 4, 4.5, 5):
    y = place(0, tick)[1]
    lines.append(f'<path d="M{LEFT} {y:.1f}H{RIGHT}" stroke="#ddd"/>'
                 f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
for step in range(0, 1001, 200):
    x = place(step, LOW)[0]
    lines.append(f'<text x="{x:.1f}" y="{BOTTOM + 18}" text-anchor="middle">{step}</text>')
lines.append(f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 40}" text-anchor="middle">'
             'steps of 8192 tokens; validation loss in nats per token</text>')
for name, (colour, points) in CURVES.items():
    path = " ".join("{:.1f},{:.1f}".format(*place(*p)) for p in points)
    x, y = place(*points[-1])
    lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
                 f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" fill="{colour}">{name}: {points[-1][1]}</text>')
    lines += ['<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="{}"/>'.format(*place(*p), colour) for p in points]
lines.append("</svg>")
pathlib.Path(__file__).with_name("training-loss.svg").write_text("\n".join(lines) + "\n")
