"""What makes and checks this repository; a student never opens it.

    notebooks   the build, the cards and checks, `make course`, `make release`
    base_model  the documents, pages and pretraining of assets/tiny-gemma-ko
    colab       01 to 03 on a Colab GPU, with Google's own command
    site        every page as a web site
    figures     the four pictures of the course
"""
