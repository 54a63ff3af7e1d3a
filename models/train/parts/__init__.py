"""Part inspection: the renderer of machined surfaces, the networks, and how they are measured.

`scene` holds what a frame may look like (the ranges of training, calibration and test), `surface`
the texture of the metal, `features` what belongs on a part, `defects` what does not, `camera` the
way from light to a JPEG, `render` puts them together, `network` trains and writes the graphs,
`samples` chooses the frames that a bundle carries, `card` writes CARD.md.
"""
